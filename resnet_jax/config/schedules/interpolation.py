"""Straight lines between points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optax


def straight_lines(points: Sequence[tuple[float, float]]) -> optax.Schedule:
    """Return a function of time that is linear between points and constant outside of them.

    Args:
        points: Times, which do not fall, and values. Of two points at the same time, the second one
            counts from there on.
    """
    times, values = zip(*points, strict=True)

    def schedule(time: Any) -> Any:
        import jax.numpy as jnp

        # Arrays are made here, so that they have the precision of the computation.
        return jnp.interp(time, jnp.asarray(times, float), jnp.asarray(values, float))

    return schedule
