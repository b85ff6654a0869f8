"""Pixels to the range that a network expects."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def normalize(images: jax.Array, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """``(images - mean) / std`` in float32; [..., C], statistics of shape [C] or []."""
    return (images.astype(jnp.float32) - mean) / std
