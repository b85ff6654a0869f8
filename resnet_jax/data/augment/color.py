"""Operations on colors: blending with gray and rotation of the hue, with Pillow's arithmetic.

Images are uint8[H, W, C] with one channel (grayscale) or three (red, green, blue).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def luma(image: jax.Array) -> jax.Array:
    """Return the gray level of each pixel (ITU-R 601), as ``Image.convert("L")`` does.

    Args:
        image: uint8[H, W, 1 or 3].

    Returns:
        int32[H, W, 1], 0 to 255.

    Raises:
        ValueError: The image does not have 1 or 3 channels.
    """
    levels = image.astype(jnp.int32)
    if image.shape[-1] == 1:
        return levels
    if image.shape[-1] != 3:
        raise ValueError(
            f"color operations need images of 1 or 3 channels, not {image.shape[-1]}; "
            "turn policy, color_jitter and grayscale off"
        )
    red, green, blue = jnp.split(levels, 3, axis=-1)
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def blend(start: ArrayLike, end: ArrayLike, factor: jax.Array) -> jax.Array:
    """Blend two images as ``Image.blend`` does, rounding down.

    Args:
        start: Levels from 0 to 255, the result for factor 0.
        end: Levels from 0 to 255, the result for factor 1. The shapes must broadcast.
        factor: float32[], not negative; values above 1 extrapolate.

    Returns:
        uint8 of the broadcast shape.
    """
    start, end = jnp.asarray(start, jnp.float32), jnp.asarray(end, jnp.float32)
    # The bound is never reached. It keeps compilers from fusing the product and the sum into one
    # instruction, which would round once where Pillow rounds twice.
    step = jnp.minimum(factor * (end - start), 1e6)
    return jnp.clip(start + step, 0, 255).astype(jnp.uint8)


def enhance_color(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Change the saturation as ``ImageEnhance.Color`` does: 0 gives gray, 1 the image unchanged."""
    return blend(luma(image), image, factor)


def turn_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
    """Rotate the hue as torchvision's ``adjust_hue`` does for Pillow images.

    Grayscale images do not change.  The computation goes through HSV with 8 bits, as in Pillow.  If
    the exact hue is halfway between two of its 255 steps (0.2 % of all colors), Pillow's
    floating-point arithmetic may give the lower one.

    Args:
        image: uint8[H, W, 1 or 3].
        turn: float32[], rotation in turns of the color circle, from -0.5 to 0.5.

    Returns:
        uint8 of the same shape.
    """
    if image.shape[-1] == 1:
        return image
    levels = image.astype(jnp.int32)
    red, green, blue = levels[..., 0], levels[..., 1], levels[..., 2]
    value = jnp.max(levels, axis=-1)
    chroma = value - jnp.min(levels, axis=-1)
    # The hue in sixths of the circle, multiplied by the chroma.
    sixths = jnp.where(
        red == value,
        green - blue,
        jnp.where(green == value, 2 * chroma + blue - red, 4 * chroma + red - green),
    )
    sixths = jnp.where(sixths < 0, sixths + 6 * chroma, sixths)
    hue = _divide(255 * sixths, jnp.maximum(6 * chroma, 1))
    saturation = _divide(255 * chroma, jnp.maximum(value, 1))

    hue = (hue + jnp.trunc(turn * 255).astype(jnp.int32)) & 255
    # The share of the saturation that affects red, green and blue, in steps of 1/255. As a function
    # of the hue it is a trapezium.
    place = (6 * hue[..., None] + 255 * jnp.array([5, 3, 1])) % 1530
    effect = jnp.clip(jnp.minimum(place, 1020 - place), 0, 255)
    turned = value[..., None] * (65025 - saturation[..., None] * effect)
    return _divide(turned + 65025 // 2, 65025).astype(jnp.uint8)


def _divide(numerator: jax.Array, denominator: ArrayLike) -> jax.Array:
    """Divide integers, rounding down, for quotients below 256 and denominators up to 65025."""
    # Vector units divide floats only. The added half keeps exact quotients from being rounded down.
    return jnp.floor((numerator + 0.5) / denominator).astype(jnp.int32)
