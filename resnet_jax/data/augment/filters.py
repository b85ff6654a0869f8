"""Filters that mix each pixel with its neighbors, with Pillow's integer arithmetic.

Images are uint8[H, W, C].
"""

import jax
import jax.numpy as jnp

from resnet_jax.data.augment.color import blend

MAX_BLUR_RADIUS = 2.0
"""Largest radius of `gaussian_blur` in pixels, which is the largest radius in 3-Augment."""


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Change the sharpness as ``ImageEnhance.Sharpness`` does: 0 smooths, 1 changes nothing."""
    return blend(_smooth(image), image, factor)


def gaussian_blur(image: jax.Array, radius: jax.Array) -> jax.Array:
    """Blur an image as ``ImageFilter.GaussianBlur`` does.

    Pillow approximates the Gaussian by three box blurs along each axis, and repeats the pixels at
    the edges.  The result is within one gray level of Pillow's, because the width of the box is
    computed in float32 here.

    Args:
        image: uint8[H, W, C].
        radius: float32[], standard deviation in pixels, from 0 to `MAX_BLUR_RADIUS`.

    Returns:
        uint8[H, W, C].
    """
    # The box whose real-valued width gives this variance (Gwosdek et al. 2011, section 2).
    variance = radius * radius / 3
    whole = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    part /= 6 * (variance - (whole + 1) ** 2)

    # Fixed-point weights with 24 fractional bits.
    inner = (2**24 / (2 * (whole + part) + 1)).astype(jnp.uint32)
    outer = (2**24 - (2 * whole + 1).astype(jnp.uint32) * inner) // 2
    weights = [
        jnp.where(distance <= whole, inner, jnp.where(distance == whole + 1, outer, 0))
        for distance in range(3)
    ]
    height, width, channels = image.shape
    # Merging the last two axes gives long rows, which suit vector units.
    levels = image.reshape(height, width * channels).astype(jnp.uint32)
    for _ in range(3):
        levels = _box_blur(levels, weights, axis=1, step=channels)
    for _ in range(3):
        levels = _box_blur(levels, weights, axis=0, step=1)
    return levels.reshape(image.shape).astype(jnp.uint8)


def _box_blur(levels: jax.Array, weights: list[jax.Array], axis: int, step: int) -> jax.Array:
    """Blur along one axis.

    Args:
        levels: uint32[H, W C].
        weights: Weight for each distance, uint32[] with 24 fractional bits. The weights of all
            neighbors sum to 1.
        axis: The axis.
        step: Number of entries between neighbors.
    """
    size, reach = levels.shape[axis], len(weights) - 1
    first = jax.lax.slice_in_dim(levels, 0, step, axis=axis)
    last = jax.lax.slice_in_dim(levels, size - step, size, axis=axis)
    # The barrier makes XLA compute the padded array once instead of once for each neighbor.
    padded = jax.lax.optimization_barrier(
        jnp.concatenate([first] * reach + [levels] + [last] * reach, axis)
    )

    def shifted(distance: int) -> jax.Array:
        start = (reach + distance) * step
        return jax.lax.slice_in_dim(padded, start, start + size, axis=axis)

    total = weights[0] * levels + 2**23
    for distance in range(1, reach + 1):
        total += weights[distance] * (shifted(-distance) + shifted(distance))
    return total >> 24


def _smooth(image: jax.Array) -> jax.Array:
    """Smooth as ``ImageFilter.SMOOTH`` does: average 3x3 pixels, the central one with weight 5.

    The outermost pixels do not change.
    """
    height, width = image.shape[:2]
    levels = image.astype(jnp.int32)
    if height < 3 or width < 3:
        return levels
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * levels[1:-1, 1:-1]
    smoothed = (2 * total + 13) // 26
    return levels.at[1:-1, 1:-1].set(smoothed)
