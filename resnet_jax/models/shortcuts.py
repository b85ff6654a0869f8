"""Shortcuts for blocks whose input and output differ in shape.

Each goes from [B, H, W, C] to [B, H/stride, W/stride, features].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.layers import Conv, Norm


class Shortcut(nn.Module):
    """What every shortcut is given.

    Attributes:
        features: channels of the output.
        stride: in pixels.
        dilation: of the block; above 1 where it replaces a stride.
        preactivation: leave the normalisation to the next block.
        conv: builds a convolution.
        norm: builds a normalisation layer.
    """

    features: int
    stride: int
    dilation: int
    preactivation: bool
    conv: Conv
    norm: Norm

    def project(self, x: jax.Array, stride: int, *, train: bool) -> jax.Array:
        """1x1 convolution and normalisation."""
        x = self.conv(self.features, 1, stride, name="conv")(x)
        return x if self.preactivation else self.norm(name="norm")(x, train=train)


class ProjectionShortcut(Shortcut):
    """1x1 convolution and normalisation: option B of He et al. 2015."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.project(x, self.stride, train=train)


class AveragePoolShortcut(Shortcut):
    """2x2 average pooling before the projection: ResNet-D (He et al. 2018, figure 2c).

    As in timm: of a window that reaches beyond the image only what is within counts, but where
    dilation replaces the stride, zeros around it count too.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.stride > 1:
            padding = tuple((0, size % self.stride) for size in x.shape[1:3])
            strides = (self.stride, self.stride)
            x = nn.avg_pool(x, (2, 2), strides, padding, count_include_pad=False)
        elif self.dilation > 1:
            x = nn.avg_pool(x, (2, 2), (1, 1), ((0, 1), (0, 1)))
        return self.project(x, 1, train=train)


class PadShortcut(Shortcut):
    """Subsampling and zero channels: option A of He et al. 2015, without parameters.

    The zeros are split evenly over both ends of the channels, as in the PyTorch CIFAR networks
    whose weights are published (akamaster/pytorch_resnet_cifar10).
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # There are no statistics here.
        x = x[:, :: self.stride, :: self.stride]
        missing = self.features - x.shape[-1]
        before = missing // 2
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))
