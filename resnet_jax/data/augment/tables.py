"""Point operations: each level is replaced by another one, which a table of 256 levels gives.

A table is uint8[C, 256] and images are uint8[H, W, C].  The results equal Pillow's, except for the
differences that `autocontrast` names.
"""

import jax
import jax.numpy as jnp

from resnet_jax.data.augment.color import blend, luma


def look_up(image: jax.Array, table: jax.Array) -> jax.Array:
    """Replace each level of an image by its entry in the table."""

    def channel(table: jax.Array, levels: jax.Array) -> jax.Array:
        return table.at[levels].get(mode="promise_in_bounds")

    return jax.vmap(channel, (0, -1), -1)(table, image)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the table of ``ImageEnhance.Brightness``: 0 gives black, 1 changes nothing."""
    return blend(0, _levels(image), factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return the table of ``ImageEnhance.Contrast``: 0 gives the mean gray level."""
    gray = luma(image)
    # The mean is rounded, halves upward. The sum fits in 32 bits up to 8 million pixels.
    mean = (jnp.sum(gray) + gray.size // 2) // gray.size
    return blend(mean, _levels(image), factor)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Return the table of ``ImageOps.posterize``, which keeps 0 to 8 bits; 0 bits give black."""
    dropped = 8 - bits.astype(jnp.int32)
    return (_levels(image) >> dropped << dropped).astype(jnp.uint8)


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Return the table of ``ImageOps.solarize``, which inverts levels from a threshold upward."""
    levels = _levels(image)
    return jnp.where(levels < threshold, levels, 255 - levels).astype(jnp.uint8)


def solarize_add(image: jax.Array, amount: jax.Array) -> jax.Array:
    """Return the table of timm's ``solarize_add``, which adds an amount to levels below 128."""
    levels = _levels(image)
    brighter = jnp.minimum(levels + amount.astype(jnp.int32), 255)
    return jnp.where(levels < 128, brighter, levels).astype(jnp.uint8)


def invert(image: jax.Array, unused: jax.Array) -> jax.Array:
    """Return the table of ``ImageOps.invert``."""
    del unused
    return (255 - _levels(image)).astype(jnp.uint8)


def autocontrast(image: jax.Array, unused: jax.Array) -> jax.Array:
    """Return the table of ``ImageOps.autocontrast``, which stretches each channel to all levels.

    Results are rounded down.  If the exact result is an integer, Pillow's float64 arithmetic may
    fall just below it, and then give one level less.
    """
    del unused
    low, high = (
        limit.astype(jnp.int32)[:, None] for limit in (image.min((0, 1)), image.max((0, 1)))
    )
    stretched = jnp.clip((_levels(image) - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, _levels(image)).astype(jnp.uint8)


def equalize(image: jax.Array, unused: jax.Array) -> jax.Array:
    """Return the table of ``ImageOps.equalize``, which makes all levels about equally frequent."""
    del unused
    channels = image.shape[-1]
    histogram = _histogram(image)
    highest = image.max((0, 1))
    step = (image.size // channels - histogram[jnp.arange(channels), highest])[:, None] // 255
    below = jnp.cumsum(histogram, axis=-1) - histogram
    equalized = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, equalized, _levels(image)).astype(jnp.uint8)


def _histogram(image: jax.Array) -> jax.Array:
    """Return the number of pixels of each level, int32[C, 256]."""
    channels = image.shape[-1]
    # One flat index, because XLA's scatter on CPUs takes twice as long with two indices.
    cells = image.astype(jnp.int32) + 256 * jnp.arange(channels)
    counts = jnp.zeros(256 * channels, jnp.int32)
    return counts.at[cells.reshape(-1)].add(1, mode="promise_in_bounds").reshape(channels, 256)


def _levels(image: jax.Array) -> jax.Array:
    """Return the table that changes nothing, int32[C, 256]."""
    return jnp.tile(jnp.arange(256), (image.shape[-1], 1))
