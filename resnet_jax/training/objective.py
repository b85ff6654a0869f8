"""The loss of each example."""

from collections.abc import Callable
from functools import partial

import jax
import optax

from resnet_jax.config import LossConfig

Objective = Callable[[jax.Array, jax.Array], jax.Array]
"""From float32[B, K] logits and either int32[B] labels or float32[B, K] targets to float32[B]
losses, in nats."""


def create_objective(config: LossConfig) -> Objective:
    """Return the loss that a configuration describes."""
    return partial(cross_entropy, label_smoothing=config.label_smoothing)


def cross_entropy(
    logits: jax.Array, targets: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Return the softmax cross entropy of each example, in nats.

    Args:
        logits: float32[B, K].
        targets: int32[B], labels from 0 to K - 1, or float32[B, K], targets that sum to 1.
        label_smoothing: Share of the target that is spread evenly over all K classes (Szegedy et
            al. 2015, section 7), as in PyTorch.

    Returns:
        float32[B].
    """
    if targets.ndim == 1:
        targets = jax.nn.one_hot(targets, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))
