"""Configuration of the moving averages of parameters and running statistics."""

import dataclasses
from typing import Literal

from resnet_jax.config.validation import require


@dataclasses.dataclass(frozen=True)
class AveragingConfig:
    """Exponential moving averages, which are evaluated instead of the parameters."""

    decay: float = 0.0
    """Share of the averages that a step keeps. 0 turns them off; 0.9999 is usual for ImageNet."""
    warmup: Literal["none", "tensorflow"] = "none"
    """How the averages forget the initial parameters. "tensorflow" keeps at most
    (1 + t) / (10 + t) of the averages after t steps."""

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, f"decay must be in [0, 1), but it is {self.decay}")
        require(
            self.decay > 0 or self.warmup == "none",
            'averaging.warmup needs averaging.decay above 0; set it, or warmup to "none"',
        )
