"""Pooling by attention, which replaces the mean over the last feature map in CLIP."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_HEAD_CHANNELS = 64


class AttentionPool(nn.Module):
    """Attention of the mean pixel to all pixels (Radford et al. 2021, section 2.4).

    The mean and the pixels are tokens, to which learned positions are added.  Where the feature map
    has another size than ``grid``, the positions are resized by bicubic interpolation, as in timm.
    The projection that follows in CLIP is the head of the network.  Maps dtype[B, H, W, C] to
    dtype[B, C].

    Attributes:
        grid: height and width of the feature map that the positions belong to.
        dtype: compute type.

    Raises:
        ValueError: the number of channels is not a multiple of 64, the size of a head.
    """

    grid: int = 7
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        if channels % _HEAD_CHANNELS:
            raise ValueError(
                f"AttentionPool needs a multiple of {_HEAD_CHANNELS} channels, but there are "
                f"{channels}; change width"
            )
        init = nn.initializers.truncated_normal(channels**-0.5)
        positions = self.param(
            "position_embedding", init, (1 + self.grid**2, channels), jnp.float32
        )

        pixels = x.reshape(batch, height * width, channels)
        mean = jnp.mean(pixels.astype(jnp.float32), axis=1, keepdims=True).astype(x.dtype)
        tokens = jnp.concatenate([mean, pixels], axis=1)
        tokens += self._resized(positions, height, width).astype(x.dtype)[None]

        def heads(name: str, tokens: jax.Array) -> jax.Array:
            y = nn.Dense(channels, kernel_init=init, dtype=self.dtype, name=name)(tokens)
            return y.reshape(batch, -1, channels // _HEAD_CHANNELS, _HEAD_CHANNELS)

        # Only the token of the mean is returned, so that only its query is needed.
        query = heads("query", tokens[:, :1]) / math.sqrt(_HEAD_CHANNELS)
        weights = jnp.einsum("bqhc,bkhc->bhqk", query, heads("key", tokens))
        weights = nn.softmax(weights.astype(jnp.float32)).astype(self.dtype)
        pooled = jnp.einsum("bhqk,bkhc->bqhc", weights, heads("value", tokens))
        return pooled.reshape(batch, channels)

    def _resized(self, positions: jax.Array, height: int, width: int) -> jax.Array:
        """Return the positions of the mean and of a feature map of another size."""
        if (height, width) == (self.grid, self.grid):
            return positions
        channels = positions.shape[-1]
        grid = positions[1:].reshape(self.grid, self.grid, channels)
        grid = jax.image.resize(grid, (height, width, channels), "bicubic")
        return jnp.concatenate([positions[:1], grid.reshape(height * width, channels)])
