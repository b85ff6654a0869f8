"""Geometric operations on one image: flip, crop, and affine maps with Pillow's arithmetic.

Images are [H, W, C] of any dtype, unless stated otherwise.  An affine map is float32[6], (a, b, c,
d, e, f), with Pillow's meaning: the point (x, y) of the result shows the point (a x + b y + c,
d x + e y + f) of the image.  The upper left corner of the image is (0, 0), and the center of the
first pixel is (0.5, 0.5).
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Interpolation = Literal["nearest", "bilinear"]
PaddingMode = Literal["zeros", "reflect"]


def random_flip(key: jax.Array, image: jax.Array, *, probability: float) -> jax.Array:
    """Mirror an image horizontally with some probability."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def random_crop(
    key: jax.Array, image: jax.Array, *, padding: int, mode: PaddingMode = "zeros"
) -> jax.Array:
    """Pad an image and return a random window of the original size.

    Args:
        key: PRNG key.
        image: [H, W, C].
        padding: Number of pixels added to each of the four sides.
        mode: Content of the padding: ``"zeros"``, or ``"reflect"``, which mirrors the image without
            repeating the pixels at its edge.

    Returns:
        [H, W, C]. All windows are equally likely.

    Reference:
        He et al. 2015, arXiv:1512.03385, section 4.2.
    """
    margin = ((padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(image, margin, mode="constant" if mode == "zeros" else "reflect")
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def shear_x(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the map that moves rows left by ``factor`` times their distance from the top."""
    del image
    return _affine(1, factor, 0, 0, 1, 0)


def shear_y(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the map that moves columns up by ``factor`` times their distance from the left."""
    del image
    return _affine(1, 0, 0, factor, 1, 0)


def translate_x(image: jax.Array, pixels: jax.Array) -> jax.Array:
    """Return the affine map that moves the content to the right."""
    del image
    return _affine(1, 0, -pixels, 0, 1, 0)


def translate_y(image: jax.Array, pixels: jax.Array) -> jax.Array:
    """Return the affine map that moves the content down."""
    del image
    return _affine(1, 0, 0, 0, 1, -pixels)


def rotate(image: jax.Array, degrees: jax.Array) -> jax.Array:
    """Return the affine map that rotates the content counter-clockwise about the image's center."""
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
    """Apply an affine map as Pillow's ``Image.transform(size, AFFINE, ...)`` does.

    Coordinates are fixed-point numbers with 16 fractional bits, as in Pillow's nearest-neighbor
    code.  Pillow rounds them from float64, this function from float32.  The last bit may differ,
    and then another neighbor may be chosen, for about one pixel in ten thousand.

    Args:
        image: uint8[H, W, C], with sides below 16,384 pixels.
        affine: float32[6], see the top of this module.
        interpolation: ``"nearest"``, or ``"bilinear"`` between four pixels, rounded down.
        fill: Levels outside the image: one value, or one for each channel.

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
        # From the corners of the pixels to their centers.
        x, y = x - 32768, y - 32768
        dx, dy = ((v & 0xFFFF).astype(jnp.float32)[..., None] / 65536 for v in (x, y))
        x, y = x >> 16, y >> 16
        upper = _between(take(y, x), take(y, x + 1), dx)
        lower = _between(take(y + 1, x), take(y + 1, x + 1), dx)
        warped = _between(upper, lower, dy).astype(jnp.uint8)
    return jnp.where(inside[..., None], warped, jnp.asarray(fill, jnp.uint8))


def _affine(*coefficients: ArrayLike) -> jax.Array:
    """Return six coefficients as float32[6]."""
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in coefficients])


def _between(start: jax.Array, end: jax.Array, share: jax.Array) -> jax.Array:
    """Interpolate linearly, in float32."""
    start, end = start.astype(jnp.float32), end.astype(jnp.float32)
    return start + (end - start) * share
