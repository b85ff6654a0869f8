"""Stochastic gradient descent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from resnet_jax.config.optimizers.base import BaseOptimizerConfig
from resnet_jax.config.optimizers.parameters import Parameters
from resnet_jax.config.validation import (
    require,
    require_share,
)

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class SGDConfig(BaseOptimizerConfig):
    """Stochastic gradient descent with momentum."""

    kind: ClassVar[str] = "sgd"

    momentum: float = 0.9
    """Share of the previous update that is kept, from 0 to below 1."""
    nesterov: bool = True
    """Use Nesterov momentum."""
    weight_decay: float = 1e-4
    """Weight decay. The field decay says how it is applied."""
    decay: Literal["coupled", "decoupled", "schedule"] = "coupled"
    """How parameters decay. "coupled" adds the parameter times weight_decay to its gradient, as in
    PyTorch's SGD. "decoupled" subtracts the parameter times weight_decay times the learning rate,
    as in timm's sgdw. "schedule" subtracts the parameter times weight_decay times the learning rate
    divided by its peak, as in Mosaic's DecoupledSGDW and in big_vision."""
    accumulator_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which the momentum is kept. "bfloat16" halves its memory, as in big_vision."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "momentum")
        require(
            self.momentum > 0 or not self.nesterov,
            "nesterov needs momentum above 0; set momentum, or nesterov to False",
        )

    def create(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        """Return the optimizer, which equals its reference step for step.

        The references are ``torch.optim.SGD`` (coupled), timm's ``SGDW`` (decoupled), and Mosaic
        Composer's ``DecoupledSGDW`` (schedule).

        Args:
            learning_rate: The schedule, whose peak is the field of that name, or a constant.
            parameters: The kinds of parameters.
        """
        # Only training needs Optax; `--help` and importers do not wait for it.
        import optax

        dtype = None if self.accumulator_dtype == "float32" else self.accumulator_dtype
        if self.decay == "coupled":
            return optax.chain(
                optax.add_decayed_weights(self.weight_decay, mask=parameters.decayed),
                optax.sgd(
                    learning_rate,
                    momentum=self.momentum or None,
                    nesterov=self.nesterov,
                    accumulator_dtype=dtype,
                ),
            )
        # The decay is added to an update that the learning rate multiplies later.
        peak = self.learning_rate if self.decay == "schedule" else 1.0
        return optax.chain(
            optax.trace(self.momentum, self.nesterov, dtype) if self.momentum else optax.identity(),
            optax.add_decayed_weights(self.weight_decay / peak, mask=parameters.decayed),
            optax.scale_by_learning_rate(learning_rate),
        )
