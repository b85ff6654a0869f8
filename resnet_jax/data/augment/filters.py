"""Each pixel mixed with its neighbours, with Pillow's whole-number arithmetic.

Images are uint8[H, W, C].
"""

import jax
import jax.numpy as jnp

from resnet_jax.data.augment.color import blend

MAX_BLUR_RADIUS = 2.0
"""The largest radius of `gaussian_blur`: that of 3-Augment."""


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """``ImageEnhance.Sharpness``: smoothed at factor 0, the image at 1, sharpened above."""
    return blend(_smooth(image), image, factor)


def gaussian_blur(image: jax.Array, radius: jax.Array) -> jax.Array:
    """``ImageFilter.GaussianBlur``: three box blurs in x and three in y, the border repeated.

    Within one grey level of Pillow's: the width of the box comes from float32 arithmetic.

    Args:
        image: uint8[H, W, C].
        radius: float32[], the standard deviation in pixels, 0 to `MAX_BLUR_RADIUS`.

    Returns:
        uint8[H, W, C].
    """
    # The box of a real-valued width that has this variance (Gwosdek et al. 2011, section 2).
    variance = radius * radius / 3
    whole = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    part /= 6 * (variance - (whole + 1) ** 2)

    # Weights with 24 bits behind the point.
    inner = (2**24 / (2 * (whole + part) + 1)).astype(jnp.uint32)
    outer = (2**24 - (2 * whole + 1).astype(jnp.uint32) * inner) // 2
    weights = [
        jnp.where(distance <= whole, inner, jnp.where(distance == whole + 1, outer, 0))
        for distance in range(3)
    ]
    height, width, channels = image.shape
    # Rows without a third axis, for the vector units.
    levels = image.reshape(height, width * channels).astype(jnp.uint32)
    for _ in range(3):
        levels = _box_blur(levels, weights, axis=1, step=channels)
    for _ in range(3):
        levels = _box_blur(levels, weights, axis=0, step=1)
    return levels.reshape(image.shape).astype(jnp.uint8)


def _box_blur(levels: jax.Array, weights: list[jax.Array], axis: int, step: int) -> jax.Array:
    """Weights, by distance, are uint32[] with 24 bits behind the point and make 1 together.

    The neighbours lie ``step`` entries apart.
    """
    size, reach = levels.shape[axis], len(weights) - 1
    first = jax.lax.slice_in_dim(levels, 0, step, axis=axis)
    last = jax.lax.slice_in_dim(levels, size - step, size, axis=axis)
    # The barrier lets XLA write it down once, instead of once for every neighbour.
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
    """``ImageFilter.SMOOTH``: the mean of 3x3 pixels with 5-fold weight in the middle.

    The outermost pixels stay.
    """
    height, width = image.shape[:2]
    levels = image.astype(jnp.int32)
    if height < 3 or width < 3:
        return levels
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * levels[1:-1, 1:-1]
    smoothed = (2 * total + 13) // 26
    return levels.at[1:-1, 1:-1].set(smoothed)
