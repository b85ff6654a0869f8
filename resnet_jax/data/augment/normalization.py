"""Normalization of images by the mean and standard deviation of each channel."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def normalize(
    images: jax.Array,
    mean: ArrayLike | tuple[float, ...],
    std: ArrayLike | tuple[float, ...],
) -> jax.Array:
    """Normalize images: ``(images / 255 - mean) / std``.

    Images have levels from 0 to 255.  Mean and standard deviation are on a scale from 0 to 1, as in
    `AugmentConfig`, in `list_pretrained`, and in torchvision and timm:

        normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    Args:
        images: [..., C], uint8 or any other type, with levels from 0 to 255.
        mean: Mean on a scale from 0 to 1: a number, or a tuple, list or array of C or 1 numbers.
        std: Standard deviation on the same scale, in any of these forms.

    Returns:
        float32[..., C].

    Raises:
        ValueError: The mean or the standard deviation is above 1, so it was probably computed from
            levels up to 255.
    """
    mean, std = _levels("mean", mean), _levels("std", std)
    return (images.astype(jnp.float32) - mean) / std


def _levels(name: str, values: ArrayLike | tuple[float, ...]) -> jax.Array | np.ndarray:
    """Return statistics in the unit of the levels, float32."""
    if isinstance(values, jax.Array):
        return (255 * values).astype(jnp.float32)
    # Rounding once, after a product in float64, gives the same bits as statistics of the levels.
    exact = np.asarray(values, np.float64)
    if exact.max() > 1:
        raise ValueError(
            f"{name} must be on a scale from 0 to 1, but it is {values}; divide statistics of "
            "levels from 0 to 255 by 255"
        )
    return (255 * exact).astype(np.float32)
