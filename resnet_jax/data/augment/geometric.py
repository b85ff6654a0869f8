"""Where the pixels of one image go: flip, crop, and affine maps with Pillow's arithmetic.

Images are [H, W, C] of any type, unless said otherwise.  An affine map is float32[6], Pillow's: the
point (x, y) of the result takes what lies at (a x + b y + c, d x + e y + f) in the image, where the
upper left corner of the image is (0, 0) and the centre of the first pixel (0.5, 0.5).
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Interpolation = Literal["nearest", "bilinear"]
PaddingMode = Literal["zeros", "reflect"]


def random_flip(key: jax.Array, image: jax.Array, *, probability: float) -> jax.Array:
    """Swaps left and right with a probability."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def random_crop(
    key: jax.Array, image: jax.Array, *, padding: int, mode: PaddingMode = "zeros"
) -> jax.Array:
    """A window of the image's own size, uniformly from the padded image (He et al. 2015, sec. 4.2).

    Args:
        key: PRNG key.
        image: [H, W, C].
        padding: pixels added on each of the four sides.
        mode: "zeros", or "reflect", which mirrors the image without repeating its border.
    """
    margin = ((padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(image, margin, mode="constant" if mode == "zeros" else "reflect")
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def shear_x(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Affine map: rows move left by ``factor`` times their distance from the upper border."""
    del image
    return _affine(1, factor, 0, 0, 1, 0)


def shear_y(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Affine map: columns move up by ``factor`` times their distance from the left border."""
    del image
    return _affine(1, 0, 0, factor, 1, 0)


def translate_x(image: jax.Array, pixels: jax.Array) -> jax.Array:
    """Affine map: the content moves to the right."""
    del image
    return _affine(1, 0, -pixels, 0, 1, 0)


def translate_y(image: jax.Array, pixels: jax.Array) -> jax.Array:
    """Affine map: the content moves down."""
    del image
    return _affine(1, 0, 0, 0, 1, -pixels)


def rotate(image: jax.Array, degrees: jax.Array) -> jax.Array:
    """Affine map: the content turns counter-clockwise about the centre of the image."""
    y, x = image.shape[0] / 2, image.shape[1] / 2
    angle = -jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _affine(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def warp(
    image: jax.Array,
    affine: jax.Array,
    *,
    interpolation: Interpolation = "nearest",
    fill: Sequence[int] = (0,),
) -> jax.Array:
    """Applies an affine map as Pillow's ``Image.transform(size, AFFINE, ...)`` does.

    Coordinates are fixed-point numbers with 16 bits behind the point, as in Pillow's
    nearest-neighbour code.  Pillow rounds them from float64, here it is float32: the last bit may
    differ, and with it the neighbour that is chosen, for about one pixel in ten thousand.

    Args:
        image: uint8[H, W, C], sides below 16,384.
        affine: float32[6], see the top of this module.
        interpolation: "nearest", or "bilinear" between four pixels, rounded down.
        fill: what lies outside the image, one value or one per channel.

    Returns:
        uint8[H, W, C].
    """
    height, width, channels = image.shape
    a, b, c, d, e, f = affine
    a, b, c, d, e, f = jnp.floor(
        jnp.stack([a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2]) * 65536 + 0.5
    ).astype(jnp.int32)
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    x, y = a * column + b * row + c, d * column + e * row + f
    inside = (x >= 0) & (x < width << 16) & (y >= 0) & (y < height << 16)
    pixels = image.reshape(-1, channels)

    def take(y: jax.Array, x: jax.Array) -> jax.Array:
        y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
        return pixels.at[y * width + x].get(mode="promise_in_bounds")

    if interpolation == "nearest":
        warped = take(y >> 16, x >> 16)
    else:
        # From the borders of pixels to their centres.
        x, y = x - 32768, y - 32768
        dx, dy = ((v & 0xFFFF).astype(jnp.float32)[..., None] / 65536 for v in (x, y))
        x, y = x >> 16, y >> 16
        upper = _between(take(y, x), take(y, x + 1), dx)
        lower = _between(take(y + 1, x), take(y + 1, x + 1), dx)
        warped = _between(upper, lower, dy).astype(jnp.uint8)
    return jnp.where(inside[..., None], warped, jnp.asarray(fill, jnp.uint8))


def _affine(*coefficients: ArrayLike) -> jax.Array:
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in coefficients])


def _between(start: jax.Array, end: jax.Array, share: jax.Array) -> jax.Array:
    start, end = start.astype(jnp.float32), end.astype(jnp.float32)
    return start + (end - start) * share
