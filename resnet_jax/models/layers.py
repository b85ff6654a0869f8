"""Layers of which every residual network here is made.

Arrays are NHWC and kernels HWIO.  Padding is explicit and symmetric, as in PyTorch: ``SAME`` with
stride 2 pads bottom and right only, so that published PyTorch weights would give other numbers.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.ops import convolution, pooling

Conv = Callable[..., nn.Module]
"""Builds a convolution: (features, kernel_size, stride, *, dilation, groups, name)."""

Norm = Callable[..., nn.Module]
"""Builds a normalisation layer: (*, scale_init, name); the layer is called with (x, *, train)."""

Activation = Callable[[jax.Array], jax.Array]

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Convolution initialiser of torchvision: ``kaiming_normal_(mode="fan_out")``."""

torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for ``nn.Linear`` weights: uniform within ``1 / sqrt(fan_in)``."""


def conv(
    features: int,
    kernel_size: int,
    stride: int = 1,
    *,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    padding: Literal["symmetric", "same"] = "symmetric",
    kernel_init: nn.initializers.Initializer = he_normal_fan_out,
    dtype: Any = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """A square convolution that keeps the image centred.

    Args:
        features: number of output channels.
        kernel_size: height and width of the kernel in pixels, odd.
        stride: step in pixels along height and width.
        dilation: distance between the taps of the kernel, in pixels.
        groups: number of groups that the channels are split into (Xie et al. 2016).
        use_bias: add a bias.
        padding: ``"symmetric"`` as in PyTorch, or ``"same"`` as in TensorFlow: of an odd number of
            missing pixels the larger part goes to the bottom and the right.
        kernel_init: initialiser of the kernel.
        dtype: compute type.
        name: of the module.

    Returns:
        A module from [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features].
    """
    return nn.Conv(
        features,
        kernel_size=(kernel_size, kernel_size),
        strides=(stride, stride),
        padding="SAME" if padding == "same" else dilation * (kernel_size - 1) // 2,
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        conv_general_dilated=convolution.convolve,
        name=name,
    )


class StandardizedConv(nn.Module):
    """A convolution whose kernel is standardised for each output channel (Qiao et al. 2019).

    As in BiT: variance with 1 / n, and 1e-8 added to it.  Same shapes as `conv`.
    """

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    epsilon: float = 1e-8
    kernel_init: nn.initializers.Initializer = he_normal_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        kernel = kernel - jnp.mean(kernel, axis=(0, 1, 2))
        kernel *= jax.lax.rsqrt(jnp.mean(kernel**2, axis=(0, 1, 2)) + self.epsilon)
        padding = self.dilation * (self.kernel_size - 1) // 2
        return convolution.convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            ((padding, padding), (padding, padding)),
            rhs_dilation=(self.dilation, self.dilation),
            feature_group_count=self.groups,
        )


def max_pool(x: jax.Array, stride: int = 2) -> jax.Array:
    """3x3 max-pooling with padding 1: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C]."""
    return pooling.max_pool(x, 3, stride, ((1, 1), (1, 1)))


def same_max_pool(x: jax.Array) -> jax.Array:
    """`max_pool` padded as in TensorFlow; see `conv`."""
    return pooling.max_pool(x, 3, 2, "SAME")


def zero_padded_max_pool(x: jax.Array) -> jax.Array:
    """`max_pool` with zeros instead of nothing around the image, as in BiT."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return pooling.max_pool(padded, 3, 2, "VALID")


def average_pool(x: jax.Array, stride: int = 2) -> jax.Array:
    """The mean of each stride x stride square; a rest at the border is dropped.

    Raises:
        ValueError: there is no whole square.
    """
    _check_pixels(x, stride, "averaged over squares")
    return nn.avg_pool(x, (stride, stride), strides=(stride, stride))


def blur_pool(x: jax.Array, stride: int = 2) -> jax.Array:
    """Binomial 3x3 filter, then subsampling, the border reflected (Zhang 2019).

    [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    Raises:
        ValueError: there is nothing to reflect.
    """
    _check_pixels(x, 2, "blurred")
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    x = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:])[:, ::stride] / 4
    return (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:])[:, :, ::stride] / 4


def _check_pixels(x: jax.Array, least: int, what: str) -> None:
    if min(x.shape[1:3]) < least:
        raise ValueError(
            f"the images are too small: a feature map of {x.shape[1]}x{x.shape[2]} pixels cannot "
            f"be {what}; give larger images, or small_input=True"
        )


def blurred_max_pool(x: jax.Array) -> jax.Array:
    """`max_pool` whose subsampling is done by `blur_pool`."""
    return blur_pool(max_pool(x, stride=1))


def drop_path(x: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): examples become zero at random.

    Args:
        x: float[B, H, W, C].
        rate: float[], the probability of it, from 0 to below 1; the others are scaled by
            1 / (1 - rate).
        key: of the choice.
    """
    kept = jax.random.bernoulli(key, 1 - rate, (len(x), 1, 1, 1))
    return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), 0)


class ConvPool(nn.Module):
    """A strided 3x3 convolution in place of the stem's pooling (ResNet-RS, Bello et al. 2021).

    [B, H, W, C] to [B, ceil(H/2), ceil(W/2), C].
    """

    conv: Conv
    norm: Norm
    act: Activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.conv(x.shape[-1], 3, 2, name="conv")(x)
        return self.act(self.norm(name="norm")(x, train=train))


class Stem(nn.Module):
    """Convolutions on the image, before any pooling; the first one carries the stride.

    One 7x7 for ImageNet (He et al. 2015, table 1), one 3x3 for CIFAR (section 4.2), three 3x3
    for a deep stem (He et al. 2018, figure 2b).  Each is followed by normalisation and activation,
    but for the last one in a pre-activation network.
    [B, H, W, in_channels] to [B, H/stride, W/stride, widths[-1]].
    """

    widths: tuple[int, ...]
    kernel_size: int
    stride: int
    preactivation: bool
    conv: Conv
    norm: Norm
    act: Activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i, width in enumerate(self.widths, start=1):
            index = "" if len(self.widths) == 1 else str(i)
            stride = self.stride if i == 1 else 1
            x = self.conv(width, self.kernel_size, stride, name=f"conv{index}")(x)
            if not (self.preactivation and i == len(self.widths)):
                x = self.act(self.norm(name=f"norm{index}")(x, train=train))
        return x
