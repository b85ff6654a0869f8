"""What the schedules that fall until the end of the run have in common."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from resnet_jax.config.schedules.timing import Clock, Duration
from resnet_jax.config.schedules.warmup import WarmupConfig
from resnet_jax.config.validation import require, require_from_0_to_1, require_not_negative

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class DecayConfig(WarmupConfig):
    """A schedule with a warm-up and a decay. A subclass defines `decay`."""

    hold_epochs: float = 0.0
    """Number of epochs between the warm-up and the decay, in which the learning rate stays at its
    peak. A run that is not longer than the warm-up and these epochs together leaves them out."""
    end: float = 0.0
    """Learning rate at the end of the run as a share of the peak, from 0 to 1."""
    warmup_prefix: bool = True
    """Begin the decay after the warm-up. False begins the decay at the start of the run, as timm
    does by default. The warm-up then replaces the beginning of the decay, and the peak is never
    reached."""
    warmup_target: Literal["peak", "decay"] = "peak"
    """Learning rate that the warm-up rises to if warmup_prefix is False. "peak" rises to the peak,
    as in timm. "decay" rises to the value of the decay when the warm-up ends, as in TensorFlow's
    Model Garden."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "hold_epochs")
        require_from_0_to_1(self, "end")
        require(
            self.warmup_prefix or not self.hold_epochs,
            f"hold_epochs ({self.hold_epochs:g}) needs warmup_prefix; set hold_epochs to 0, or "
            "warmup_prefix to True",
        )
        require(
            self.warmup_target == "peak" or not self.warmup_prefix,
            'warmup_target "decay" needs warmup_prefix to be False; set it, or warmup_target to '
            '"peak"',
        )

    def curve(self, peak: float, clock: Clock) -> optax.Schedule:
        """Return the learning rate as a function of the time of a clock."""
        import optax

        warmup = self.warmup_length(clock)
        if not self.warmup_prefix:
            whole = self.decay(peak, clock, 0)
            value: Any = whole(warmup) if self.warmup_target == "decay" else peak
            ramp = self.ramp(peak, float(value), warmup)
            return optax.join_schedules([ramp, lambda time: whole(time + warmup)], [warmup])
        begin = self._end_of_hold(clock, warmup)
        begin = begin if begin < clock.length else warmup
        ramp, decay = self.ramp(peak, peak, warmup), self.decay(peak, clock, begin)
        if begin == warmup:
            return optax.join_schedules([ramp, decay], [warmup])
        held = optax.constant_schedule(peak)
        return optax.join_schedules([ramp, held, decay], [warmup, begin])

    def _end_of_hold(self, clock: Clock, warmup: Duration) -> Duration:
        """Return the time when the decay begins, by the clock, given the length of the warm-up."""
        if not self.hold_epochs:
            return warmup
        if self.warmup_steps is None:
            # The steps of an epoch may differ between epochs, so the two are converted together.
            return clock.of_epochs(self.warmup(clock.epochs) + self.hold_epochs)
        return warmup + clock.of_epochs(self.hold_epochs)

    def decay(self, peak: float, clock: Clock, begin: Duration) -> optax.Schedule:
        """Return the decay as a function of the time since its beginning.

        Args:
            peak: Learning rate at the beginning of the decay.
            clock: The time of the run.
            begin: The time at which the decay begins.
        """
        raise NotImplementedError
