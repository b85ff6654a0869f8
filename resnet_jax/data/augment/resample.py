"""Images resampled to another size, turned, magnified and moved in the same interpolation.

Randomness is drawn for the whole batch from one key, so the pixels do not depend on how the batch
is sharded.
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
    """Resamples images to a square, turned, magnified and moved about their centres.

    One bilinear interpolation does all of it; outside the image there are zeros.

    Args:
        images: [B, H, W, C].
        size: height and width of the result, in pixels.
        rotation: [B], in radians, counter-clockwise as seen on the screen.
        scale: [B], above 1 magnifies.
        shift: [B, 2], how far the content moves down and right, in pixels of ``images``.

    Returns:
        float32[B, size, size, C].
    """
    height, width = images.shape[1:3]
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    # Pixel centres of the result in coordinates of the source, relative to its centre.
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


def random_affine_resize(
    key: jax.Array,
    images: jax.Array,
    size: int,
    *,
    max_rotation: float,
    max_scaling: float,
    max_shift: float,
) -> jax.Array:
    """`affine_resize` with uniform random parameters for every image.

    Args:
        key: PRNG key.
        images: [B, H, W, C].
        size: height and width of the result, in pixels.
        max_rotation: in degrees, either way.
        max_scaling: natural logarithm of the largest magnification, either way.
        max_shift: in pixels of ``images``, in y and in x, either way.

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
