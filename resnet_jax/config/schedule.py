"""Configuration of the learning-rate schedule.

A new schedule is one more class here with a `create`, and one more member of `ScheduleConfig`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.validation import require, require_not_negative, require_positive

if TYPE_CHECKING:
    import optax

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


@dataclasses.dataclass(frozen=True)
class CosineConfig(WarmupConfig):
    """Linear warm-up, then half a cosine from the peak down to zero."""

    kind: ClassVar[str] = "cosine"

    def create(
        self, peak: float, *, epochs: float, steps: Callable[[float], int]
    ) -> optax.Schedule:
        """Return the learning rate by step.

        Args:
            peak: learning rate at the end of the warm-up.
            epochs: length of the run.
            steps: from a number of epochs to the nearest number of steps.
        """
        import optax

        warmup_steps = self.warmup_steps(epochs, steps)
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if warmup_steps else peak,
            peak_value=peak,
            warmup_steps=warmup_steps,
            decay_steps=steps(epochs),
        )


@dataclasses.dataclass(frozen=True)
class StepsConfig(WarmupConfig):
    """Linear warm-up, then a constant learning rate that falls at given epochs."""

    kind: ClassVar[str] = "steps"

    decay_epochs: tuple[float, ...] = (30.0, 60.0, 80.0)
    """Epochs after which the learning rate is multiplied by decay_factor."""
    decay_factor: float = 0.1
    """Factor by which the learning rate falls at each of the decay_epochs, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "decay_factor")
        require(
            all(a < b for a, b in itertools.pairwise((self.warmup_epochs, *self.decay_epochs))),
            f"decay_epochs must rise and come after warmup_epochs ({self.warmup_epochs}), but they "
            f"are {self.decay_epochs}",
        )

    def check_epochs(self, epochs: float) -> None:
        """Raise `ConfigError` if a decay comes after the end of the run."""
        require(
            max(self.decay_epochs, default=0) < epochs,
            f"schedule.decay_epochs {self.decay_epochs} must be below epochs ({epochs}); change "
            "both",
        )

    def create(
        self, peak: float, *, epochs: float, steps: Callable[[float], int]
    ) -> optax.Schedule:
        """Return the learning rate by step; see `CosineConfig.create`."""
        import optax

        warmup_steps = self.warmup_steps(epochs, steps)
        rates = [peak * self.decay_factor**i for i in range(len(self.decay_epochs) + 1)]
        return optax.join_schedules(
            [
                optax.linear_schedule(0.0, peak, max(warmup_steps, 1)),
                *map(optax.constant_schedule, rates),
            ],
            [warmup_steps, *map(steps, self.decay_epochs)],
        )


ScheduleConfig = CosineConfig | StepsConfig
