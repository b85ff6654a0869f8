"""The residual networks of Flax's ImageNet example, with its modules, names, order and padding."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class ResNetBlock(nn.Module):
    """A basic block or, with ``bottleneck``, a bottleneck block.  The example has two classes."""

    features: int
    stride: int
    bottleneck: bool
    train: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C] to [B, H/stride, W/stride, C']."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(
            nn.BatchNorm, use_running_average=not self.train, momentum=0.9, dtype=self.dtype
        )
        width = self.features * (4 if self.bottleneck else 1)
        layers = (
            [(self.features, 1, 1), (self.features, 3, self.stride), (width, 1, 1)]
            if self.bottleneck
            else [(width, 3, self.stride), (width, 3, 1)]
        )
        y = x
        for i, (features, size, stride) in enumerate(layers):
            y = conv(features, (size, size), (stride, stride))(y)
            y = norm()(y)
            y = nn.relu(y) if i < len(layers) - 1 else y
        if x.shape != y.shape:
            strides = (self.stride, self.stride)
            x = conv(width, (1, 1), strides, name="conv_proj")(x)
            x = norm(name="norm_proj")(x)
        return nn.relu(x + y)


class FlaxExample(nn.Module):
    """The network, from images [B, H, W, 3] to logits [B, num_classes]."""

    stage_sizes: tuple[int, ...]
    bottleneck: bool
    num_classes: int = 1000
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Return the logits of images."""
        padding = ((3, 3), (3, 3))
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        x = conv(self.width, (7, 7), (2, 2), padding, name="conv_init")(x)
        x = norm(name="bn_init")(x)
        x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2), padding="SAME")
        kind = "BottleneckResNetBlock" if self.bottleneck else "ResNetBlock"
        index = 0
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                stride = 2 if i > 0 and j == 0 else 1
                x = ResNetBlock(
                    self.width * 2**i,
                    stride,
                    self.bottleneck,
                    train,
                    self.dtype,
                    name=f"{kind}_{index}",
                )(x)
                index += 1
        head = nn.Dense(self.num_classes, dtype=self.dtype, name="Dense_0")
        return head(jnp.mean(x, axis=(1, 2)))
