"""Colours mixed with grey or turned, with the integer and float arithmetic of Pillow.

Images are uint8[H, W, C] of one channel, which is grey already, or three: red, green, blue.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def luma(image: jax.Array) -> jax.Array:
    """The grey level of each pixel (ITU-R 601), as ``Image.convert("L")``.

    Args:
        image: uint8[H, W, 1 or 3].

    Returns:
        int32[H, W, 1], 0 to 255.

    Raises:
        ValueError: the image has another number of channels.
    """
    levels = image.astype(jnp.int32)
    if image.shape[-1] == 1:
        return levels
    if image.shape[-1] != 3:
        raise ValueError(
            f"colour operations need images of 1 or 3 channels, not {image.shape[-1]}; "
            "turn the policy, color_jitter and grayscale off"
        )
    red, green, blue = jnp.split(levels, 3, axis=-1)
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def blend(start: ArrayLike, end: ArrayLike, factor: jax.Array) -> jax.Array:
    """``Image.blend``: from ``start`` at factor 0 to ``end`` at 1 and beyond, rounded down.

    Args:
        start: levels from 0 to 255.
        end: levels from 0 to 255, of a shape that fits.
        factor: float32[], not negative.

    Returns:
        uint8 of the common shape.
    """
    start, end = jnp.asarray(start, jnp.float32), jnp.asarray(end, jnp.float32)
    # The bound is never reached.  It stands between product and sum, so that no compiler makes one
    # instruction of them, which would round once where Pillow rounds twice.
    step = jnp.minimum(factor * (end - start), 1e6)
    return jnp.clip(start + step, 0, 255).astype(jnp.uint8)


def enhance_color(image: jax.Array, factor: jax.Array) -> jax.Array:
    """``ImageEnhance.Color``: grey at factor 0, the image at 1, stronger colours above."""
    return blend(luma(image), image, factor)


def turn_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
    """Turns the hue as torchvision's ``adjust_hue`` does on Pillow images; grey images stay.

    By way of HSV in 8 bits, as in Pillow.  Where the hue falls exactly between two of its 255
    steps (0.2 % of all colours), Pillow's float arithmetic may end in the lower one.

    Args:
        image: uint8[H, W, 1 or 3].
        turn: float32[], -0.5 to 0.5 of the circle.

    Returns:
        uint8 of the same shape.
    """
    if image.shape[-1] == 1:
        return image
    levels = image.astype(jnp.int32)
    red, green, blue = levels[..., 0], levels[..., 1], levels[..., 2]
    value = jnp.max(levels, axis=-1)
    chroma = value - jnp.min(levels, axis=-1)
    # Sixths of the circle, times chroma.
    sixths = jnp.where(
        red == value,
        green - blue,
        jnp.where(green == value, 2 * chroma + blue - red, 4 * chroma + red - green),
    )
    sixths = jnp.where(sixths < 0, sixths + 6 * chroma, sixths)
    hue = _divide(255 * sixths, jnp.maximum(6 * chroma, 1))
    saturation = _divide(255 * chroma, jnp.maximum(value, 1))

    hue = (hue + jnp.trunc(turn * 255).astype(jnp.int32)) & 255
    # How much of the saturation takes effect in red, green and blue, in steps of 1/255: a trapezium
    # over the circle.
    place = (6 * hue[..., None] + 255 * jnp.array([5, 3, 1])) % 1530
    effect = jnp.clip(jnp.minimum(place, 1020 - place), 0, 255)
    turned = value[..., None] * (65025 - saturation[..., None] * effect)
    return _divide(turned + 65025 // 2, 65025).astype(jnp.uint8)


def _divide(numerator: jax.Array, denominator: ArrayLike) -> jax.Array:
    """The quotient of whole numbers, rounded down; below 256, with denominators up to 65025."""
    # Vector units divide floats only.  Half a step keeps whole quotients clear of rounding.
    return jnp.floor((numerator + 0.5) / denominator).astype(jnp.int32)
