"""Channel attention, and the units that replace the 3x3 convolution of a block.

As in timm, the layers that compute the attention use ReLU, whatever the activation of the network.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.layers import Activation, Conv, Norm, centered_average_pool
from resnet_jax.models.normalization import activated


def divisible(value: float, divisor: int, *, minimum: int = 0, keep: float = 0.0) -> int:
    """Return the nearest multiple of a divisor, as timm rounds numbers of channels.

    Args:
        value: number to round.  Halves are rounded up.
        divisor: number that divides the result.  It is the smallest result if ``minimum`` is 0.
        minimum: smallest result.
        keep: smallest allowed ratio of the result to the value.  Below it, the next multiple is
            returned.
    """
    rounded = max(minimum or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < keep * value else rounded


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2017), from [B, H, W, C] to the same shape.

    Attributes:
        reduction: number of hidden channels divided by C.  The product is rounded to a multiple of
            8.
        use_bias: whether both dense layers have a bias.
    """

    reduction: float = 1 / 16
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        reduced = divisible(channels * self.reduction, 8)
        gate = jnp.mean(x, axis=(1, 2))
        dense = partial(nn.Dense, use_bias=self.use_bias, dtype=x.dtype)
        gate = nn.relu(dense(reduced, name="reduce")(gate))
        gate = nn.sigmoid(dense(channels, name="expand")(gate))
        return x * gate[:, None, None, :]


class EfficientChannelAttention(nn.Module):
    """Efficient channel attention (Wang et al. 2019), from [B, H, W, C] to the same shape.

    A 1D convolution over the pooled channels computes a factor for each channel.  The size of its
    kernel grows with the logarithm of the number of channels.

    Attributes:
        channels: number of channels that the size of the kernel follows from.  None takes C.  A
            pruned network keeps the kernels of the network that it was pruned from.
    """

    channels: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = int((math.log2(self.channels or x.shape[-1]) + 1) / 2)
        size = max(size + 1 - size % 2, 3)
        gate = jnp.mean(x, axis=(1, 2))[..., None]
        conv = nn.Conv(1, (size,), padding=size // 2, use_bias=False, dtype=x.dtype, name="conv")
        return x * nn.sigmoid(conv(gate))[:, None, None, :, 0]


class SpatialUnit(nn.Module):
    """The fields of units that replace a 3x3 convolution, its normalization and its activation.

    A unit is called with (x, *, train) and maps [B, H, W, C] to
    [B, ceil(H/stride), ceil(W/stride), features].

    Attributes:
        features: number of output channels.
        stride: stride in pixels.
        dilation: dilation of the convolutions in pixels.
        groups: number of groups of the convolutions.
        conv: builds a convolution.
        norm: builds a normalization layer.
        act: activation function.
        projects: whether the block has a layer in its shortcut, as the first block of a stage has.
        scale: number of parts that the channels are split into.  A bottleneck has this many times
            the channels of one without a spatial unit.
    """

    features: int
    stride: int
    dilation: int
    groups: int
    conv: Conv
    norm: Norm
    act: Activation
    projects: bool = False
    scale: int = 1


class SelectiveKernelPath(SpatialUnit):
    """One of the convolutions whose outputs `SelectiveKernel` mixes."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.conv(
            self.features,
            3,
            self.stride,
            dilation=self.dilation,
            groups=self.groups,
            name="conv",
        )(x)
        return activated(self.norm(name="norm"), self.act, x, train=train)


class PathAttention(nn.Module):
    """A weight for each of P paths and each channel, from [B, P, H, W, C] to [B, P, 1, 1, C].

    The weights of the paths sum to 1 for each channel.

    Attributes:
        reduced: number of hidden channels.
        norm: builds a normalization layer.
    """

    reduced: int
    norm: Norm

    @nn.compact
    def __call__(self, paths: jax.Array, *, train: bool) -> jax.Array:
        batch, num_paths, _, _, channels = paths.shape
        dtype = paths.dtype
        x = jnp.mean(jnp.sum(paths, axis=1), axis=(1, 2))
        x = nn.Dense(self.reduced, use_bias=False, dtype=dtype, name="reduce")(x)
        x = nn.relu(self.norm(name="norm")(x, train=train))
        x = nn.Dense(num_paths * channels, use_bias=False, dtype=dtype, name="select")(x)
        return nn.softmax(x.reshape(batch, num_paths, 1, 1, channels), axis=1)


class SelectiveKernel(SpatialUnit):
    """Attention over a 3x3 convolution and a dilated one (Li et al. 2019), as in timm.

    Attributes:
        reduction: number of hidden channels of the attention, divided by ``features``.
        divisor: number that divides the number of hidden channels.
        split_input: give each path half of the input channels instead of all of them.
    """

    reduction: float = 1 / 16
    divisor: int = 8
    split_input: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        inputs = jnp.split(x, 2, axis=-1) if self.split_input else [x, x]
        paths = jnp.stack(
            [
                SelectiveKernelPath(
                    self.features,
                    self.stride,
                    i * self.dilation,
                    self.groups,
                    self.conv,
                    self.norm,
                    self.act,
                    name=f"path{i}",
                )(part, train=train)
                for i, part in enumerate(inputs, start=1)
            ],
            axis=1,
        )
        reduced = divisible(self.features * self.reduction, self.divisor, keep=0.9)
        weights = PathAttention(reduced, self.norm, name="attention")(paths, train=train)
        return jnp.sum(paths * weights, axis=1)


class SplitAttention(SpatialUnit):
    """Split attention of ResNeSt (Zhang et al. 2020, figure 2).

    As in timm, all activations are ReLU.

    Attributes:
        radix: number of splits of each of the ``groups`` cardinal groups.
    """

    radix: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        width, radix, groups = self.radix * self.features, self.radix, self.groups
        reduced = divisible(0.25 * x.shape[-1] * radix, 8, minimum=32, keep=0.9)
        x = self.conv(
            width, 3, self.stride, dilation=self.dilation, groups=groups * radix, name="conv"
        )(x)
        x = nn.relu(self.norm(name="norm")(x, train=train))
        splits = x.reshape(*x.shape[:-1], radix, self.features)

        gate = jnp.mean(jnp.sum(splits, axis=-2), axis=(1, 2), keepdims=True)
        gate = self.conv(reduced, 1, groups=groups, use_bias=True, name="reduce")(gate)
        gate = nn.relu(self.norm(name="reduce_norm")(gate, train=train))
        gate = self.conv(width, 1, groups=groups, use_bias=True, name="expand")(gate)[:, 0, 0]
        if radix > 1:
            # The convolution orders its channels by group, then by split; `splits` has the splits
            # first.
            gate = gate.reshape(x.shape[0], groups, radix, self.features // groups)
            gate = nn.softmax(gate.swapaxes(1, 2), axis=1)
        else:
            gate = nn.sigmoid(gate)
        gate = gate.reshape(x.shape[0], radix, self.features)
        return jnp.sum(splits * gate[:, None, None], axis=-2)


class MultiScale(SpatialUnit):
    """The hierarchy of 3x3 convolutions of Res2Net (Gao et al. 2019, figure 2b).

    The channels are split into ``scale`` parts.  Each part but the last is convolved, after the
    result of the previous part is added to it.  In a block with a layer in its shortcut nothing is
    added, and the last part is averaged over 3x3 windows instead of passing unchanged.
    """

    scale: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.features % self.scale:
            raise ValueError(
                f"MultiScale cannot split {self.features} channels into {self.scale} equal parts; "
                "change scale or width"
            )
        parts = jnp.split(x, self.scale, axis=-1)
        last = parts.pop() if self.scale > 1 else None
        results: list[jax.Array] = []
        for i, part in enumerate(parts, start=1):
            y = part if self.projects or not results else part + results[-1]
            y = self.conv(
                self.features // self.scale,
                3,
                self.stride,
                dilation=self.dilation,
                groups=self.groups,
                name=f"conv{i}",
            )(y)
            results.append(activated(self.norm(name=f"norm{i}"), self.act, y, train=train))
        if last is not None:
            results.append(centered_average_pool(last, self.stride) if self.projects else last)
        return jnp.concatenate(results, axis=-1)
