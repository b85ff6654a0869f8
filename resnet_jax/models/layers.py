"""Layers of which every residual network here is made.

Arrays are NHWC and kernels HWIO.  Padding is explicit and symmetric, as in PyTorch: ``SAME`` with
stride 2 pads bottom and right only, so that published PyTorch weights would give other numbers.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Norm = Callable[..., nn.Module]
Conv = Callable[..., nn.Module]

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Convolution initialiser of torchvision: ``kaiming_normal_(mode="fan_out")``."""

torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for ``nn.Linear`` weights: uniform within ``1 / sqrt(fan_in)``."""


def conv(features: int, kernel_size: int, stride: int = 1, **kwargs: Any) -> nn.Conv:
    """A square convolution without bias that pads ``(kernel_size - 1) // 2`` on every side.

    Args:
        features: number of output channels.
        kernel_size: height and width of the kernel in pixels, odd.
        stride: step in pixels along height and width.
        **kwargs: further fields of `flax.linen.Conv`, such as ``dtype`` and ``name``.

    Returns:
        A module from [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features].
    """
    return nn.Conv(
        features,
        kernel_size=(kernel_size, kernel_size),
        strides=(stride, stride),
        padding=(kernel_size - 1) // 2,
        use_bias=False,
        kernel_init=he_normal_fan_out,
        **kwargs,
    )


class BatchNorm(nn.BatchNorm):
    """`flax.linen.BatchNorm` with the mode given by ``train`` at the call, and nowhere else.

    Statistics are computed and kept in float32 whatever the compute type.  Under `jax.jit` the
    batch axis is the global batch, so the statistics are those of the whole batch on any number
    of devices.  ``momentum`` is Flax's: the share of the running value that is kept (0.9), which
    PyTorch calls 0.1.  The running variance is the biased one, where PyTorch stores the unbiased
    one, larger by n / (n - 1) for n values a channel.
    """

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:  # pyrefly: ignore[bad-override]
        """Normalises float[..., C] over all axes but the last, to the same shape."""
        return super().__call__(x, use_running_average=not train)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 max-pooling with stride 2 and padding 1: [B, H, W, C] to [B, ceil(H/2), ceil(W/2), C]."""
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


class Stem(nn.Module):
    """Convolution, normalisation and ReLU on the image, before any pooling.

    7x7 with stride 2 for ImageNet (He et al. 2015, table 1), 3x3 with stride 1 for CIFAR
    (section 4.2).  [B, H, W, in_channels] to [B, H/stride, W/stride, features].
    """

    features: int
    kernel_size: int
    stride: int
    conv: Conv
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.conv(self.features, self.kernel_size, self.stride, name="conv")(x)
        return nn.relu(self.norm(name="norm")(x, train=train))


class ProjectionShortcut(nn.Module):
    """1x1 convolution and normalisation where the shape changes: option B of He et al. 2015.

    [B, H, W, C] to [B, H/stride, W/stride, features].
    """

    features: int
    stride: int
    conv: Conv
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.conv(self.features, 1, self.stride, name="conv")(x)
        return self.norm(name="norm")(x, train=train)


class PadShortcut(nn.Module):
    """Subsampling and zero channels where the shape changes: option A of He et al. 2015.

    It has no parameters.  The zeros are split evenly over both ends of the channels, as in the
    PyTorch CIFAR networks whose weights are published (akamaster/pytorch_resnet_cifar10).
    [B, H, W, C] to [B, H/stride, W/stride, features].
    """

    features: int
    stride: int
    conv: Conv
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # There are no statistics here.
        x = x[:, :: self.stride, :: self.stride]
        missing = self.features - x.shape[-1]
        before = missing // 2
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))
