"""The triangular schedule."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.schedules.interpolation import straight_lines
from resnet_jax.config.schedules.timing import Clock, TimedConfig
from resnet_jax.config.validation import require_from_0_to_1

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class TriangularConfig(TimedConfig):
    """A straight line up to the peak and another one down, as in airbench.

    The function ``triangle`` of ``legacy/airbench94.py`` in KellerJordan/cifar10-airbench rounds
    the position of the peak down to whole steps, and so does this.
    """

    kind: ClassVar[str] = "triangular"

    peak_at: float = 0.23
    """Position of the peak as a share of the run, from 0 to 1."""
    warmup_start: float = 0.2
    """Learning rate of the first step as a share of the peak, from 0 to 1."""
    end: float = 0.07
    """Learning rate at the end of the run as a share of the peak, from 0 to 1."""

    def __post_init__(self) -> None:
        require_from_0_to_1(self, "peak_at", "warmup_start", "end")

    def curve(self, peak: float, clock: Clock) -> optax.Schedule:
        """Return the learning rate as a function of the time of a clock."""
        top = math.floor(self.peak_at * clock.length)
        return straight_lines(
            [(0.0, self.warmup_start * peak), (top, peak), (clock.length, self.end * peak)]
        )
