"""Moving averages of parameters and running statistics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

EmaDecay = Callable[[jax.Array], jax.Array | float]
"""From the number of steps done before to the share of the averages that the next step keeps."""


def make_ema_decay(decay: float, *, warmup: bool) -> EmaDecay:
    """Return a constant decay or, with warm-up, at most (1 + t) / (10 + t) after t steps.

    The warm-up forgets the initial parameters, which a constant decay of 0.9999 keeps for tens of
    thousands of steps (TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).
    """

    def ema_decay(step: jax.Array) -> jax.Array | float:
        return jnp.minimum(decay, (1 + step) / (10 + step)) if warmup else decay

    return ema_decay
