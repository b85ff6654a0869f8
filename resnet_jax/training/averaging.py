"""Moving averages of parameters and running statistics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from resnet_jax.config import AveragingConfig

EmaDecay = Callable[[jax.Array], jax.Array | float]
"""From the number of steps done before to the share of the averages that the next step keeps."""


def create_ema_decay(config: AveragingConfig) -> EmaDecay | None:
    """Return the decay that a configuration describes, or None if there are no averages.

    TensorFlow's warm-up is at most (1 + t) / (10 + t) after t steps (``ExponentialMovingAverage``
    with ``num_updates``).  It forgets the initial parameters, which a constant decay of 0.9999
    keeps for tens of thousands of steps.
    """
    if not config.decay:
        return None
    decay = config.decay

    def ema_decay(step: jax.Array) -> jax.Array | float:
        if config.warmup == "none":
            return decay
        return jnp.minimum(decay, (1 + step) / (10 + step))

    return ema_decay
