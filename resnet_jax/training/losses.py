"""Losses of single examples."""

import jax
import optax


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Softmax cross entropy in nats, of each example.

    Args:
        logits: float32[B, K].
        labels: int32[B], 0 to K - 1.
        label_smoothing: share of the target spread evenly over all K classes (Szegedy et al.
            2015, section 7), as in PyTorch.

    Returns:
        float32[B].
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)
