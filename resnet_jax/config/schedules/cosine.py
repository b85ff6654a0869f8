"""The cosine schedule."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.schedules.decay import DecayConfig
from resnet_jax.config.schedules.timing import Clock, Duration

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class CosineConfig(DecayConfig):
    """Linear warm-up, then half a cosine from the peak down to ``end``.

    Loshchilov and Hutter 2016, "SGDR", arXiv:1608.03983, without restarts.
    """

    kind: ClassVar[str] = "cosine"

    def decay(self, peak: float, clock: Clock, begin: Duration) -> optax.Schedule:
        """Return the half cosine; see `DecayConfig.decay`."""
        import optax

        return optax.cosine_decay_schedule(peak, clock.length - begin, alpha=self.end)
