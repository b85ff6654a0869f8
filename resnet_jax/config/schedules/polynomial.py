"""The polynomial schedule."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.schedules.decay import DecayConfig
from resnet_jax.config.schedules.timing import Clock, Duration
from resnet_jax.config.validation import require, require_not_negative, require_positive

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class PolynomialConfig(DecayConfig):
    """Linear warm-up, then a power of the remaining time, from the peak down to ``end``."""

    kind: ClassVar[str] = "polynomial"

    power: float = 2.0
    """Power to which the remaining share of the decay is raised. 1 gives a straight line; MLPerf
    uses 2."""
    extra_steps: int = 0
    """Number of steps by which the decay is longer than the run. MLPerf uses 1, so the last step of
    the run is two steps before the end of the decay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "power")
        require_not_negative(self, "extra_steps")
        require(
            self.granularity == "step" or not self.extra_steps,
            'extra_steps needs granularity "step"; set it, or extra_steps to 0',
        )

    def decay(self, peak: float, clock: Clock, begin: Duration) -> optax.Schedule:
        """Return the power of the remaining time; see `DecayConfig.decay`."""
        import optax

        length = clock.length - begin + self.extra_steps
        return optax.polynomial_schedule(peak, self.end * peak, self.power, length)
