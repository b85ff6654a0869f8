"""The constant schedule."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.schedules.timing import Clock
from resnet_jax.config.schedules.warmup import WarmupConfig

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class ConstantConfig(WarmupConfig):
    """Linear warm-up, then the peak until the end of the run."""

    kind: ClassVar[str] = "constant"

    def curve(self, peak: float, clock: Clock) -> optax.Schedule:
        """Return the learning rate as a function of the time of a clock."""
        return self.ramp(peak, peak, self.warmup_length(clock))
