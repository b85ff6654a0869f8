"""Resampling of images, also with a rotation, magnification and shift in the same interpolation.

One key draws the random numbers of the whole batch, so the pixels do not depend on the sharding.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


def affine_resize(
    images: jax.Array,
    size: int,
    *,
    rotation: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
) -> jax.Array:
    """Resample images to a square, and rotate, magnify and shift them about their centers.

    All of it is one bilinear interpolation.  Pixels outside the image are zero.

    Args:
        images: [B, H, W, C].
        size: Height and width of the result in pixels.
        rotation: [B], angle in radians, counter-clockwise as seen on the screen.
        scale: [B], magnification; values above 1 enlarge the content.
        shift: [B, 2], distance by which the content moves down and to the right, in pixels of
            ``images``.

    Returns:
        float32[B, size, size, C].
    """
    height, width = images.shape[1:3]
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    # Pixel centers of the result, in coordinates of the source relative to its center.
    grid = (jnp.arange(size) + 0.5) / size - 0.5
    target_y, target_x = jnp.meshgrid(grid * height, grid * width, indexing="ij")

    def resample(
        image: jax.Array, rotation: jax.Array, scale: jax.Array, shift: jax.Array
    ) -> jax.Array:
        y, x = target_y - shift[0], target_x - shift[1]
        cos, sin = jnp.cos(rotation) / scale, jnp.sin(rotation) / scale
        source = [cos * y + sin * x + center_y, cos * x - sin * y + center_x]
        return jax.vmap(lambda channel: map_coordinates(channel, source, order=1), -1, -1)(image)

    return jax.vmap(resample)(images.astype(jnp.float32), rotation, scale, shift)


def resize(images: jax.Array, size: int) -> jax.Array:
    """Resize images to a square, with bilinear interpolation and antialiasing.

    Args:
        images: float[B, H, W, C].  Images of the wanted size are returned unchanged.
        size: Height and width of the result in pixels.

    Returns:
        float[B, size, size, C].
    """
    batch, height, width, channels = images.shape
    if (height, width) == (size, size):
        return images
    return jax.image.resize(images, (batch, size, size, channels), "bilinear", antialias=True)


def random_affine_resize(
    key: jax.Array,
    images: jax.Array,
    size: int,
    *,
    max_rotation: float,
    max_scaling: float,
    max_shift: float,
) -> jax.Array:
    """Apply `affine_resize` with random parameters for each image.

    The angle, the logarithm of the magnification, and both shifts are uniform between the negative
    and the positive limit.

    Args:
        key: PRNG key.
        images: [B, H, W, C].
        size: Height and width of the result in pixels.
        max_rotation: Largest angle in degrees.
        max_scaling: Natural logarithm of the largest magnification.
        max_shift: Largest vertical and horizontal shift, in pixels of ``images``.

    Returns:
        float32[B, size, size, C].
    """
    draws = jax.random.uniform(key, (len(images), 4), minval=-1.0, maxval=1.0)
    return affine_resize(
        images,
        size,
        rotation=jnp.deg2rad(max_rotation * draws[:, 0]),
        scale=jnp.exp(max_scaling * draws[:, 1]),
        shift=max_shift * draws[:, 2:],
    )
