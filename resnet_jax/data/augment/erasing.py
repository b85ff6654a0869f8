"""Random erasing: rectangles of an image are replaced by noise or by the mean.

Reference:
    Zhong et al. 2017, arXiv:1708.04896, as in timm's ``RandomErasing``.
"""

import math

import jax
import jax.numpy as jnp

from resnet_jax.config import AugmentConfig

# As in timm. The code of the paper draws up to 100 rectangles. With its areas and ratios, 1 of 25
# is too large for an image of 28x28 pixels, so that ten in a row practically never are.
_ATTEMPTS = 10


def random_erase(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """Erase random rectangles of one image with some probability.

    Args:
        key: PRNG key.
        image: float[H, W, C], normalized.
        config: Its fields that begin with ``erasing`` are used. Content of a rectangle in mode
            ``"const"`` is ``erasing_value``; in ``"rand"`` it is one normal draw for each channel;
            in ``"pixel"`` it is a normal draw for each pixel and channel.

    Returns:
        float[H, W, C].
    """
    mode, max_count = config.erasing_mode, config.erasing_max_count
    chance_key, count_key, noise_key, rectangle_key = jax.random.split(key, 4)

    def erase(image: jax.Array) -> jax.Array:
        count = jax.random.randint(count_key, (), 1, max_count + 1)
        height, width, channels = image.shape
        noise_shape = {
            "const": (1, 1, 1, 1),
            "rand": (max_count, 1, 1, channels),
            "pixel": (1, height, width, channels),
        }[mode]
        if mode == "const":
            noise = jnp.zeros(noise_shape, image.dtype)
            if any(config.erasing_value):
                noise = jnp.asarray(config.erasing_value, image.dtype).reshape(1, 1, 1, -1)
        else:
            noise = jax.random.normal(noise_key, noise_shape, image.dtype)
        noise = jnp.broadcast_to(noise, (max_count, *noise.shape[1:]))
        keys = jax.random.split(rectangle_key, max_count)
        erased = jax.vmap(lambda key: _rectangle(key, height, width, count, config))(keys)
        for index in range(max_count):
            image = jnp.where((erased[index] & (index < count))[..., None], noise[index], image)
        return image

    changed = jax.random.bernoulli(chance_key, config.erasing)
    return jax.lax.cond(changed, erase, lambda image: image, image)


def _rectangle(
    key: jax.Array, height: int, width: int, count: jax.Array, config: AugmentConfig
) -> jax.Array:
    """Return the pixels of a random rectangle, bool[H, W].

    Ten rectangles are drawn, and the first that is smaller than the image is used.  If none is, no
    pixel is True.
    """
    # One call draws everything, because each call of `jax.random` takes long to compile.
    draws = jax.random.uniform(key, (_ATTEMPTS + 1, 2))
    return rectangle(draws, height, width, count, config)


def rectangle(
    draws: jax.Array, height: int, width: int, count: jax.Array, config: AugmentConfig
) -> jax.Array:
    """Return the first of some rectangles that is smaller than the image.

    Args:
        draws: float32[N + 1, 2], uniform from 0 to below 1. Each of the first N rows gives the area
            and the ratio of a rectangle, and the last row gives the position.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        count: int32[], number of rectangles that share the area.
        config: Its fields ``erasing_area``, ``erasing_aspect`` and ``erasing_aspect_scale`` are
            used.

    Returns:
        bool[H, W]. No pixel is True if all rectangles are too large.
    """
    area = config.erasing_area
    pixels = (area[0] + (area[1] - area[0]) * draws[:-1, 0]) * (height * width) / count
    if config.erasing_aspect_scale == "linear":
        low, high = config.erasing_aspect
        ratio = low + (high - low) * draws[:-1, 1]
    else:
        low, high = (math.log(limit) for limit in config.erasing_aspect)
        ratio = jnp.exp(low + (high - low) * draws[:-1, 1])
    heights = jnp.round(jnp.sqrt(pixels * ratio)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(pixels / ratio)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    tall, wide = heights[first], widths[first]
    places = jnp.stack([height - tall + 1, width - wide + 1])
    top, left = jnp.floor(draws[-1] * places).astype(jnp.int32)
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    inside = (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)
    return inside & fits[first]
