"""RMSprop."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.optimizers.base import BaseOptimizerConfig
from resnet_jax.config.optimizers.parameters import Parameters
from resnet_jax.config.validation import require_positive, require_share

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class RmspropConfig(BaseOptimizerConfig):
    """RMSprop as in TensorFlow, whose average squared gradient starts at 1."""

    kind: ClassVar[str] = "rmsprop"

    learning_rate: float = 0.01
    alpha: float = 0.9
    """Share of the average squared gradient that a step keeps, from 0 to below 1."""
    momentum: float = 0.9
    """Share of the previous update that is kept, from 0 to below 1."""
    epsilon: float = 1e-3
    """Number that is added to the average squared gradient, before the root is taken."""
    weight_decay: float = 1e-5
    """Weight decay. The parameter times this value is added to its gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epsilon")
        require_share(self, "alpha", "momentum")

    def create(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        """Return the optimizer, which equals timm's ``RMSpropTF``; see `SGDConfig.create`."""
        import optax

        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=parameters.decayed),
            optax.rmsprop(
                learning_rate,
                decay=self.alpha,
                eps=self.epsilon,
                initial_scale=1.0,
                eps_in_sqrt=True,
                momentum=self.momentum or None,
            ),
        )
