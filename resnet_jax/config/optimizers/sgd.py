"""Stochastic gradient descent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.optimizers.decay import DecayOn
from resnet_jax.config.validation import require, require_not_negative, require_positive

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent with momentum."""

    kind: ClassVar[str] = "sgd"

    learning_rate: float = 0.1
    """Peak learning rate. It is scaled by the batch size if learning_rate_scaling is set."""
    momentum: float = 0.9
    """Share of the previous update that is kept, from 0 to below 1."""
    nesterov: bool = True
    """Use Nesterov momentum."""
    weight_decay: float = 1e-4
    """L2 coefficient. The parameter times this is added to its gradient, as in PyTorch's SGD."""
    decay_on: DecayOn = "kernels"
    """Parameters that decay: "kernels" for those of convolutions and the head, "all" for scales and
    biases as well, as in torchvision's first recipe."""

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate")
        require_not_negative(self, "weight_decay")
        require(
            0 <= self.momentum < 1,
            f"momentum must be in [0, 1), but it is {self.momentum}",
        )
        require(
            self.momentum > 0 or not self.nesterov,
            "nesterov needs momentum above 0; set momentum, or nesterov to False",
        )

    def create(
        self,
        learning_rate: optax.ScalarOrSchedule,
        *,
        decayed: Callable[[optax.Params], optax.Params] | None,
    ) -> optax.GradientTransformation:
        """Return the optimizer, which equals ``torch.optim.SGD`` step for step.

        Args:
            learning_rate: the schedule, or a constant.
            decayed: from a tree of parameters to a tree of booleans, True for those that decay.
                None if all of them do.
        """
        # Only training needs Optax; `--help` and importers do not wait for it.
        import optax

        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            optax.sgd(learning_rate, momentum=self.momentum or None, nesterov=self.nesterov),
        )
