"""The linear warm-up."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from resnet_jax.config.schedules.timing import Clock, Duration, TimedConfig
from resnet_jax.config.validation import (
    require,
    require_from_0_to_1,
    require_not_negative,
    require_positive,
)

if TYPE_CHECKING:
    import optax

# Share of the run that a warm-up takes if it was configured to be at least as long as the run.
SHORTENED_WARMUP = 0.1


@dataclasses.dataclass(frozen=True)
class WarmupConfig(TimedConfig):
    """What every schedule with a warm-up has."""

    warmup_epochs: float = 5.0
    """Number of epochs over which the learning rate rises linearly from warmup_start to its peak. A
    run that is not longer than this warms up during a tenth of its epochs."""
    warmup_steps: int | None = None
    """Number of steps of the warm-up, as in BiT. It replaces warmup_epochs. None uses
    warmup_epochs."""
    warmup_start: float = 0.0
    """Learning rate of the first step as a share of the peak, from 0 to 1. torchvision uses 0.01.
    With 0, the first step changes only the running statistics."""

    def __post_init__(self) -> None:
        require_not_negative(self, "warmup_epochs")
        require_from_0_to_1(self, "warmup_start")
        if self.warmup_steps is not None:
            require_positive(self, "warmup_steps")
            require(
                self.granularity == "step",
                'warmup_steps needs granularity "step"; set it, or give warmup_epochs instead',
            )
        require(
            self.granularity == "step" or not self.warmup_epochs or self.warmup_start > 0,
            'warmup_start 0 with granularity "epoch" would train the whole first epoch at a '
            "learning rate of 0; set warmup_start above 0, for example to 0.01, or warmup_epochs "
            "to 0",
        )

    def warmup(self, epochs: float) -> float:
        """Return the number of epochs of warm-up by ``warmup_epochs``, given those of the run."""
        return self.shortened(self.warmup_epochs, epochs)

    def shortened(self, warmup: float, length: float) -> float:
        """Return the length of a warm-up, shortened if the run is not longer than it.

        Args:
            warmup: The configured length.
            length: Length of the run in the same unit.
        """
        if warmup < length:
            return warmup
        short = SHORTENED_WARMUP * length
        return math.floor(short) if self.granularity == "epoch" else short

    def warmup_length(self, clock: Clock) -> Duration:
        """Return the length of the warm-up in the unit of a clock.

        If the unit is a step, the length is a whole number, and at least one step of the run comes
        after it.
        """
        if self.granularity == "epoch":
            return self.warmup(clock.length)
        if self.warmup_steps is not None:
            return math.floor(self.shortened(self.warmup_steps, clock.length))
        warmup = self.warmup(clock.epochs)
        # In a run of few steps, rounding must not make the warm-up as long as the run.
        return min(clock.of_epochs(warmup), clock.length - 1) if warmup else 0

    def ramp(self, peak: float, top: float, length: Duration) -> optax.Schedule:
        """Return the linear rise to ``top``, or ``top`` at all times if the length is 0."""
        import optax

        return optax.linear_schedule(self.warmup_start * peak if length else top, top, length)
