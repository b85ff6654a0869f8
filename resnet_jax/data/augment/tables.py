"""Point operations: each grey level becomes another one, which a table of 256 entries says.

A table is uint8[C, 256].  Everything is computed in whole
numbers or as Pillow computes it, and equals Pillow's, apart from `autocontrast` as said there.
Images are uint8[H, W, C].
"""

import jax
import jax.numpy as jnp

from resnet_jax.data.augment.color import blend, luma


def look_up(image: jax.Array, table: jax.Array) -> jax.Array:
    """Replaces every level by what the table says."""

    def channel(table: jax.Array, levels: jax.Array) -> jax.Array:
        return table.at[levels].get(mode="promise_in_bounds")

    return jax.vmap(channel, (0, -1), -1)(table, image)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """``ImageEnhance.Brightness``: black at factor 0, the image at 1."""
    return blend(0, _levels(image), factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """``ImageEnhance.Contrast``: the mean grey level at factor 0, the image at 1."""
    gray = luma(image)
    # Rounded half up.  The sum fits in 32 bits up to 8 million pixels.
    mean = (jnp.sum(gray) + gray.size // 2) // gray.size
    return blend(mean, _levels(image), factor)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """``ImageOps.posterize``: keeps so many of the 8 bits, 0 to 8; at 0 all is black."""
    dropped = 8 - bits.astype(jnp.int32)
    return (_levels(image) >> dropped << dropped).astype(jnp.uint8)


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """``ImageOps.solarize``: inverts the levels from a threshold on."""
    levels = _levels(image)
    return jnp.where(levels < threshold, levels, 255 - levels).astype(jnp.uint8)


def solarize_add(image: jax.Array, amount: jax.Array) -> jax.Array:
    """As ``solarize_add`` of timm: makes the levels below 128 brighter by an amount."""
    levels = _levels(image)
    brighter = jnp.minimum(levels + amount.astype(jnp.int32), 255)
    return jnp.where(levels < 128, brighter, levels).astype(jnp.uint8)


def invert(image: jax.Array, unused: jax.Array) -> jax.Array:
    """``ImageOps.invert``: the negative."""
    del unused
    return (255 - _levels(image)).astype(jnp.uint8)


def autocontrast(image: jax.Array, unused: jax.Array) -> jax.Array:
    """``ImageOps.autocontrast``: stretches each channel to the whole range, rounded down.

    Where the exact result is a whole number, Pillow's float64 arithmetic may end just below it, and
    one level lower.
    """
    del unused
    low, high = (
        limit.astype(jnp.int32)[:, None] for limit in (image.min((0, 1)), image.max((0, 1)))
    )
    stretched = jnp.clip((_levels(image) - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, _levels(image)).astype(jnp.uint8)


def equalize(image: jax.Array, unused: jax.Array) -> jax.Array:
    """``ImageOps.equalize``: makes all levels of a channel about equally frequent."""
    del unused
    channels = image.shape[-1]
    histogram = _histogram(image)
    highest = image.max((0, 1))
    step = (image.size // channels - histogram[jnp.arange(channels), highest])[:, None] // 255
    below = jnp.cumsum(histogram, axis=-1) - histogram
    equalized = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, equalized, _levels(image)).astype(jnp.uint8)


def _histogram(image: jax.Array) -> jax.Array:
    """How many pixels have each level, int32[C, 256]."""
    channels = image.shape[-1]
    # One flat index: XLA's scatter for CPUs takes twice as long with two.
    cells = image.astype(jnp.int32) + 256 * jnp.arange(channels)
    counts = jnp.zeros(256 * channels, jnp.int32)
    return counts.at[cells.reshape(-1)].add(1, mode="promise_in_bounds").reshape(channels, 256)


def _levels(image: jax.Array) -> jax.Array:
    """The table that changes nothing, int32[C, 256]."""
    return jnp.tile(jnp.arange(256), (image.shape[-1], 1))
