"""AdamW."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.optimizers.base import BaseOptimizerConfig
from resnet_jax.config.optimizers.parameters import Parameters
from resnet_jax.config.validation import require_positive, require_share

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class AdamWConfig(BaseOptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: ClassVar[str] = "adamw"

    learning_rate: float = 1e-3
    beta1: float = 0.9
    """Share of the average gradient that a step keeps, from 0 to below 1."""
    beta2: float = 0.999
    """Share of the average squared gradient that a step keeps, from 0 to below 1."""
    epsilon: float = 1e-8
    """Number that is added to the root of the average squared gradient."""
    weight_decay: float = 0.01
    """Weight decay. Each step subtracts the parameter times this value times the learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epsilon")
        require_share(self, "beta1", "beta2")

    def create(
        self, learning_rate: optax.ScalarOrSchedule, parameters: Parameters
    ) -> optax.GradientTransformation:
        """Return the optimizer, which equals ``torch.optim.AdamW``; see `SGDConfig.create`."""
        import optax

        return optax.adamw(
            learning_rate,
            self.beta1,
            self.beta2,
            self.epsilon,
            weight_decay=self.weight_decay,
            mask=parameters.decayed,
        )
