"""Lion."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.optimizers.base import BaseOptimizerConfig
from resnet_jax.config.optimizers.parameters import Parameters
from resnet_jax.config.validation import require_share

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class LionConfig(BaseOptimizerConfig):
    """Lion (Chen et al. 2023), whose updates are the signs of an average gradient."""

    kind: ClassVar[str] = "lion"

    learning_rate: float = 1e-4
    """Peak learning rate. It is scaled by the batch size if learning_rate_scaling is set. A tenth
    to a third of that of AdamW is usual."""
    beta1: float = 0.9
    """Share of the average gradient in the update, from 0 to below 1. The new gradient has the
    rest."""
    beta2: float = 0.99
    """Share of the average gradient that a step keeps, from 0 to below 1."""
    weight_decay: float = 0.1
    """Weight decay. Each step subtracts the parameter times this value times the learning rate.
    Three to ten times that of AdamW is usual."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "beta1", "beta2")

    def create(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        """Return the optimizer, which equals timm's ``Lion``; see `SGDConfig.create`."""
        import optax

        return optax.lion(
            learning_rate,
            self.beta1,
            self.beta2,
            weight_decay=self.weight_decay,
            mask=parameters.decayed,
        )
