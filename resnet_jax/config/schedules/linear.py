"""The schedule of straight lines."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.schedules.decay import DecayConfig
from resnet_jax.config.schedules.interpolation import straight_lines
from resnet_jax.config.schedules.timing import Clock, Duration
from resnet_jax.config.validation import require

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class LinearConfig(DecayConfig):
    """Linear warm-up, then straight lines from the peak through ``points`` down to ``end``."""

    kind: ClassVar[str] = "linear"

    points: tuple[tuple[float, float], ...] = ()
    """Points between the warm-up and the end of the run. Each is a pair of an epoch, counted from
    the beginning of the schedule, and the learning rate there as a share of the peak. Two points at
    the same epoch make a jump. Without points, the decay is one line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        epochs = [epoch for epoch, _ in self.points]
        after_warmup = self.warmup_prefix and self.warmup_steps is None
        first = self.warmup_epochs + self.hold_epochs if after_warmup else 0.0
        require(
            all(a <= b for a, b in itertools.pairwise((first, *epochs))),
            f"the epochs of points must not fall and not come before epoch {first:g}, where the "
            f"decay begins, but they are {tuple(epochs)}",
        )
        require(
            all(0 <= share < math.inf for _, share in self.points),
            f"the learning rates of points must be finite and not below 0, but points are "
            f"{self.points}",
        )

    def check_epochs(self, epochs: float) -> None:
        """Raise `ConfigError` if a point comes after the end of the run."""
        last = max((epoch for epoch, _ in self.points), default=0.0)
        require(
            last < epochs,
            f"schedule.points {self.points} must come before the end of the run ({epochs} epochs); "
            "change both",
        )

    def decay(self, peak: float, clock: Clock, begin: Duration) -> optax.Schedule:
        """Return the lines; see `DecayConfig.decay`."""
        # A number of epochs above 0 is at least one step, and 0 is the beginning.
        times = [clock.of_epochs(at) if at else 0 for at, _ in self.points]
        points = [
            (max(time, begin), share) for time, (_, share) in zip(times, self.points, strict=True)
        ]
        points = [(begin, 1.0), *points, (clock.length, self.end)]
        return straight_lines([(time - begin, share * peak) for time, share in points])
