"""The one-cycle schedule."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from resnet_jax.config.schedules.timing import Clock, TimedConfig
from resnet_jax.config.validation import require_from_0_to_1

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class OneCycleConfig(TimedConfig):
    """Half a cosine up to the peak and another one down, as in PyTorch's ``OneCycleLR``.

    Smith and Topin 2017, "Super-Convergence", arXiv:1708.07120.  The defaults, the two phases and
    the position of the peak are those of PyTorch, whose peak is one step before the given share of
    the run.  The last step of the run has the learning rate ``end``.  The momentum does not change.
    """

    kind: ClassVar[str] = "one_cycle"

    peak_at: float = 0.3
    """Position of the peak as a share of the run, from 0 to 1. PyTorch calls it pct_start."""
    warmup_start: float = 1 / 25
    """Learning rate of the first step as a share of the peak, from 0 to 1. It is 1 divided by
    PyTorch's div_factor."""
    end: float = 1 / 25 / 1e4
    """Learning rate of the last step as a share of the peak, from 0 to 1. It is warmup_start
    divided by PyTorch's final_div_factor."""

    def __post_init__(self) -> None:
        require_from_0_to_1(self, "peak_at", "warmup_start", "end")

    def curve(self, peak: float, clock: Clock) -> optax.Schedule:
        """Return the learning rate as a function of the time of a clock."""
        import jax.numpy as jnp
        import optax

        top, last = self.peak_at * clock.length - 1, clock.length - 1

        def half_cosine(start: float, end: float, length: float) -> optax.Schedule:
            # A phase without length is its first value.
            share = 1 / length if length > 0 else 0.0
            return lambda time: end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * share * time))

        return optax.join_schedules(
            [
                half_cosine(self.warmup_start * peak, peak, top),
                half_cosine(peak, self.end * peak, last - top),
            ],
            [top],
        )
