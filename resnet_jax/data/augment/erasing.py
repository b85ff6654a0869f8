"""Random erasing: rectangles of an image are replaced by noise or by the mean.

Reference:
    Zhong et al. 2017, arXiv:1708.04896, as in timm's ``RandomErasing``.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

_ATTEMPTS = 10


def random_erase(
    key: jax.Array,
    image: jax.Array,
    *,
    probability: float,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    mode: Literal["const", "rand", "pixel"] = "const",
    max_count: int = 1,
) -> jax.Array:
    """Erase random rectangles of one image with some probability.

    Args:
        key: PRNG key.
        image: float[H, W, C], normalized.
        probability: Probability that the image is changed.
        area: Smallest and largest area of all rectangles together, as a share of the image.
        aspect: Smallest and largest height divided by width. Its logarithm is uniform.
        mode: Content of a rectangle: ``"const"`` is zero, which is the mean; ``"rand"`` is one
            normal draw for each channel; ``"pixel"`` is a normal draw for each pixel and channel.
        max_count: Largest number of rectangles. The number is uniform from 1 to this.

    Returns:
        float[H, W, C].
    """
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
        else:
            noise = jax.random.normal(noise_key, noise_shape, image.dtype)
        noise = jnp.broadcast_to(noise, (max_count, *noise.shape[1:]))
        keys = jax.random.split(rectangle_key, max_count)
        erased = jax.vmap(lambda key: _rectangle(key, height, width, count, area, aspect))(keys)
        for index in range(max_count):
            image = jnp.where((erased[index] & (index < count))[..., None], noise[index], image)
        return image

    changed = jax.random.bernoulli(chance_key, probability)
    return jax.lax.cond(changed, erase, lambda image: image, image)


def _rectangle(
    key: jax.Array,
    height: int,
    width: int,
    count: jax.Array,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> jax.Array:
    """Return the pixels of a random rectangle, bool[H, W].

    Ten rectangles are drawn, and the first that is smaller than the image is used.  If none is, no
    pixel is True.
    """
    # One call draws everything, because each call of `jax.random` takes long to compile.
    draws = jax.random.uniform(key, (_ATTEMPTS + 1, 2))
    pixels = (area[0] + (area[1] - area[0]) * draws[:-1, 0]) * (height * width) / count
    low, high = (math.log(limit) for limit in aspect)
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
