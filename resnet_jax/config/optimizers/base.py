"""What every optimizer has."""

from __future__ import annotations

import dataclasses

from resnet_jax.config.optimizers.decay import DecayOn
from resnet_jax.config.validation import require_not_negative, require_positive


@dataclasses.dataclass(frozen=True)
class BaseOptimizerConfig:
    """The fields of every optimizer. Each optimizer also has its own `weight_decay`."""

    learning_rate: float = 0.1
    """Peak learning rate. It is scaled by the batch size if learning_rate_scaling is set."""
    decay_on: DecayOn = "kernels"
    """Parameters that decay. "kernels" chooses the kernels of convolutions and dense layers, "all"
    also chooses scales and biases, "all_but_norm" chooses all but those of normalization layers,
    and "all_but_named_norm" also chooses the normalization layers of shortcuts."""

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate")
        require_not_negative(self, "weight_decay")
