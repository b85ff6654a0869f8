"""Configuration of the learning-rate range test."""

import dataclasses

from resnet_jax.config.validation import require, require_positive, require_share


@dataclasses.dataclass(frozen=True)
class RangeTestConfig:
    """How a learning-rate range test proceeds. The defaults are those of fastai."""

    lowest: float = 1e-7
    """Learning rate of the first step."""
    highest: float = 10.0
    """Learning rate of the last step. The learning rate rises exponentially in between."""
    steps: int = 100
    """Number of steps, at least 20. The test ends earlier if the loss exceeds the limit stop_at."""
    smoothing: float = 0.98
    """Share of the average loss that each step keeps, from 0 to below 1. Use a lower value for a
    test of few steps, because the average otherwise reacts too late to the learning rate."""
    stop_at: float = 4.0
    """Largest ratio of the average loss to its minimum, above 1. The test ends when the ratio
    exceeds this value."""

    def __post_init__(self) -> None:
        require_positive(self, "lowest", "highest", "stop_at")
        require(
            self.lowest < self.highest,
            f"lowest must be below highest ({self.highest:g}), but it is {self.lowest:g}",
        )
        require(self.steps >= 20, f"steps must be at least 20, but it is {self.steps}")
        require_share(self, "smoothing")
        require(self.stop_at > 1, f"stop_at must be above 1, but it is {self.stop_at:g}")
