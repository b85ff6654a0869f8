"""The loss of each example."""

import jax
import optax


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
