"""The schedule that falls in steps."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.schedules.timing import Clock
from resnet_jax.config.schedules.warmup import WarmupConfig
from resnet_jax.config.validation import require, require_positive

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class StepsConfig(WarmupConfig):
    """Linear warm-up, then a constant learning rate that falls at given epochs."""

    kind: ClassVar[str] = "steps"

    decay_epochs: tuple[float, ...] = (30.0, 60.0, 80.0)
    """Epochs after which the learning rate is multiplied by decay_factor, counted from the
    beginning of the schedule."""
    decay_factor: float = 0.1
    """Factor by which the learning rate falls at each of the decay_epochs, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "decay_factor")
        begin = self.warmup_epochs if self.warmup_steps is None else 0.0
        require(
            all(a < b for a, b in itertools.pairwise((0.0, *self.decay_epochs)))
            and min(self.decay_epochs, default=begin) >= begin,
            f"decay_epochs must rise, and not come before the end of the warm-up ({begin:g} "
            f"epochs), but they are {self.decay_epochs}",
        )

    def check_epochs(self, epochs: float) -> None:
        """Raise `ConfigError` if a decay comes after the end of the run."""
        require(
            max(self.decay_epochs, default=0) < epochs,
            f"schedule.decay_epochs {self.decay_epochs} must be below epochs ({epochs}); change "
            "both",
        )

    def curve(self, peak: float, clock: Clock) -> optax.Schedule:
        """Return the learning rate as a function of the time of a clock."""
        import optax

        warmup = self.warmup_length(clock)
        rates = [peak * self.decay_factor**i for i in range(len(self.decay_epochs) + 1)]
        return optax.join_schedules(
            [
                optax.linear_schedule(self.warmup_start * peak, peak, max(warmup, 1)),
                *map(optax.constant_schedule, rates),
            ],
            [warmup, *map(clock.of_epochs, self.decay_epochs)],
        )
