"""The warm-up, which every schedule has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from resnet_jax.config.validation import require_not_negative

# Share of the run that a warm-up takes if it was configured to be as long as the run.
SHORTENED_WARMUP = 0.1


@dataclasses.dataclass(frozen=True)
class WarmupConfig:
    """What every schedule has."""

    warmup_epochs: float = 5.0
    """Epochs over which the learning rate rises linearly from 0 to its peak. A run that is not
    longer than this warms up during a tenth of its epochs."""

    def __post_init__(self) -> None:
        require_not_negative(self, "warmup_epochs")

    def check_epochs(self, epochs: float) -> None:
        """Raise `ConfigError` if the schedule does not fit into a run of this many epochs."""

    def warmup(self, epochs: float) -> float:
        """Return the epochs of warm-up in a run of this many epochs."""
        return self.warmup_epochs if self.warmup_epochs < epochs else SHORTENED_WARMUP * epochs

    def warmup_steps(self, epochs: float, steps: Callable[[float], int]) -> int:
        """Return the steps of warm-up, at least one fewer than the run has."""
        warmup_epochs = self.warmup(epochs)
        # In a run of few steps, rounding must not leave the warm-up alone.
        return min(steps(warmup_epochs), steps(epochs) - 1) if warmup_epochs else 0
