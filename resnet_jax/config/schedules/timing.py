"""The time that a schedule counts: steps, or whole epochs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import optax

Granularity = Literal["step", "epoch"]
"""How often the learning rate changes."""


Duration = Any
"""A number of steps, which is an int, or a number of epochs, which is a float. Optax accepts both,
although its annotations name int alone."""


class Clock(NamedTuple):
    """The time of a run in the unit of a schedule, which is a step or an epoch.

    Attributes:
        epochs: Length of the run in epochs.
        length: Length of the run in the unit.
        of_epochs: Function from a number of epochs to a time in the unit.
        read: Function from the number of steps done to the time. If the unit is an epoch, all steps
            of an epoch have the same time, which is a whole number.
    """

    epochs: float
    length: Duration
    of_epochs: Callable[[float], Duration]
    read: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimedConfig:
    """What every schedule has. A subclass defines `curve`."""

    granularity: Granularity = "step"
    """When the learning rate changes. "step" changes it after every step. "epoch" changes it after
    every epoch, as in torchvision, timm and NVIDIA's examples, so that all steps of an epoch have
    the learning rate of its beginning."""

    def check_epochs(self, epochs: float) -> None:
        """Raise `ConfigError` if the schedule does not fit into a run of this many epochs."""

    def create(
        self, peak: float, *, epochs: float, steps: Callable[[float], int]
    ) -> optax.Schedule:
        """Return the learning rate as a function of the number of steps done.

        It is computed in float32, or in float64 if ``jax_enable_x64`` is set.

        Args:
            peak: Highest learning rate.
            epochs: Length of the run in epochs.
            steps: Function from a number of epochs to the nearest number of steps.
        """
        if self.granularity == "step":
            clock = Clock(epochs, steps(epochs), steps, _integer)
        else:
            starts = [steps(epoch) for epoch in range(1, math.ceil(epochs))]
            clock = Clock(epochs, epochs, float, lambda step: _number_of(starts, step))
        curve = self.curve(peak, clock)
        return lambda step: curve(clock.read(step))

    def curve(self, peak: float, clock: Clock) -> optax.Schedule:
        """Return the learning rate as a function of the time of a clock."""
        raise NotImplementedError


def _integer(step: Any) -> Any:
    """Return the step as an int64 under ``jax_enable_x64``; JAX divides an int32 in float32."""
    import jax.numpy as jnp

    return jnp.asarray(step, int)


def _number_of(starts: list[int], step: Any) -> Any:
    """Return the number of the epoch of a step, from 0, given the first step of all but epoch 0."""
    import jax.numpy as jnp

    epoch = jnp.searchsorted(jnp.asarray(starts, int), step, side="right", method="compare_all")
    return epoch.astype(float)
