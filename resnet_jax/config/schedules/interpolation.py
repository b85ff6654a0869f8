"""Straight lines between points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optax


def straight_lines(points: Sequence[tuple[float, float]]) -> optax.Schedule:
    """Return a function of time that is linear between points and constant outside of them.

    Args:
        points: Pairs of a time and a value, in order of time. If two points have the same time, the
            value of the second one applies from then on.
    """
    times, values = zip(*points, strict=True)

    def schedule(time: Any) -> Any:
        import jax.numpy as jnp

        # Arrays are made here, so that they have the precision of the computation.
        return jnp.interp(time, jnp.asarray(times, float), jnp.asarray(values, float))

    return schedule
