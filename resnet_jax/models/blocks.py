"""Residual blocks: ``F(x) + shortcut(x)``, activated after the addition or before ``F``."""

from collections.abc import Callable
from typing import ClassVar, Literal

import flax.linen as nn
import jax

from resnet_jax.models.attention import SpatialUnit
from resnet_jax.models.layers import Activation, Conv, Norm, drop_path
from resnet_jax.models.shortcuts import ProjectionShortcut, Shortcut
from resnet_jax.ops.ordering import together
from resnet_jax.ops.platform import num_devices

Rate = jax.Array | float | None


class ResidualBlock(nn.Module):
    """What the blocks of every variant are given.

    Attributes:
        features: channels of the inner convolutions; the block returns ``expansion`` times as many.
        stride: step of the block in pixels, 1 or 2.
        first_dilation: distance between the taps of its first 3x3 convolution, in pixels.
        dilation: of a second one; above 1 where a stage is dilated instead of strided.
        conv: builds a convolution.
        norm: builds a normalisation layer.
        act: activation.
        shortcut: used where input and output differ in shape; elsewhere the input is added as is.
        attention: builds channel attention for the end of the residual branch.
        spatial_unit: builds what replaces the strided 3x3 convolution and its activation.
        antialias: (x, stride) -> x; subsamples behind the 3x3 convolution, in its place.
        average_down: 3x3 average pooling does it, before or behind that convolution (ResNeSt).
        cardinality: groups of the 3x3 convolution of a bottleneck (ResNeXt).
        base_width: of a group of the first stage, in channels; more than 64 makes it wide.
        stride_in_1x1: a bottleneck's stride sits in its first convolution, as in the paper ("v1").
        zero_init_residual: start the last layer of the residual branch at zero, so that every block
            starts as the identity (Goyal et al. 2017, section 5.1).
        dropout_rate: between the convolutions of a pre-activation block (Wide ResNet); needs a
            ``dropout`` key in training.

    A block is called with (x, *, train, drop_path_rate): float[B, H, W, C], whether it is trained,
    and the probability that an example skips the residual branch in training (Huang et al. 2016),
    float[] or None, which needs a ``dropout`` key too.
    """

    expansion: ClassVar[int] = 1
    preactivation: ClassVar[bool] = False
    # Fields of a network that its blocks do not read; other values than the default are refused.
    unused: ClassVar[tuple[str, ...]] = ()

    features: int
    stride: int
    conv: Conv
    norm: Norm
    act: Activation = nn.relu
    first_dilation: int = 1
    dilation: int = 1
    shortcut: type[Shortcut] = ProjectionShortcut
    attention: Callable[..., nn.Module] | None = None
    spatial_unit: Callable[..., SpatialUnit] | None = None
    antialias: Callable[[jax.Array, int], jax.Array] | None = None
    average_down: Literal["before", "behind"] | None = None
    cardinality: int = 1
    base_width: int = 64
    stride_in_1x1: bool = False
    zero_init_residual: bool = False
    dropout_rate: float = 0.0

    def pointwise_conv(
        self, x: jax.Array, features: int, stride: int, index: int, *, train: bool
    ) -> jax.Array:
        """A 1x1 convolution, activated."""
        x = self.conv(features, 1, stride, name=f"conv{index}")(x)
        return self.act(self.norm(name=f"norm{index}")(x, train=train))

    def strided_conv(
        self, x: jax.Array, features: int, stride: int, index: int, *, groups: int, train: bool
    ) -> jax.Array:
        """The 3x3 convolution with the stride, or what stands in its place, activated."""
        pooled = self.average_down if stride > 1 else None
        # Also where dilation has replaced the stride, as in timm.
        blurred = self.antialias is not None and (stride > 1 or self.first_dilation < self.dilation)
        conv_stride = 1 if pooled or blurred else stride
        if pooled == "before":
            x = _average_down(x, stride)
        if self.spatial_unit is None:
            x = self.conv(
                features,
                3,
                conv_stride,
                dilation=self.first_dilation,
                groups=groups,
                name=f"conv{index}",
            )(x)
            x = self.act(self.norm(name=f"norm{index}")(x, train=train))
        else:
            x = self.spatial_unit(
                features=features,
                stride=conv_stride,
                dilation=self.first_dilation,
                groups=groups,
                conv=self.conv,
                norm=self.norm,
                act=self.act,
                name=f"conv{index}",
            )(x, train=train)
        if pooled == "behind":
            x = _average_down(x, stride)
        if blurred and self.antialias is not None:
            x = self.antialias(x, stride)
        return x

    def at_once(self, y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return both inputs unchanged, with their gradients tied so that all-reduces can merge.

        The inputs are those of the last convolution and of the shortcut.  With several devices, the
        sums for the gradients of both normalisations are exchanged in one all-reduce.
        """
        projects = self.stride > 1 or x.shape[-1] != self.expansion * self.features
        if not projects or num_devices() == 1:
            return y, x
        return together(y, x)

    def last_conv(
        self, x: jax.Array, features: int, kernel_size: int, index: int, *, train: bool
    ) -> jax.Array:
        """The last convolution and normalisation of the residual branch."""
        dilation = self.dilation if kernel_size > 1 else 1
        x = self.conv(features, kernel_size, dilation=dilation, name=f"conv{index}")(x)
        scale_init = nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones
        return self.norm(scale_init=scale_init, name=f"norm{index}")(x, train=train)

    def add(
        self, x: jax.Array, residual: jax.Array, *, train: bool, drop_path_rate: Rate
    ) -> jax.Array:
        """``residual + shortcut(x)``, in the shape of ``residual``."""
        if self.attention is not None:
            residual = self.attention(name="attention")(residual)
        if train and drop_path_rate is not None:
            residual = drop_path(residual, drop_path_rate, self.make_rng("dropout"))
        shortcut = self.match(x, residual, train=train)
        if shortcut.shape != residual.shape:
            # They could still be broadcast.
            sizes = ("x".join(map(str, y.shape[1:])) for y in (residual, shortcut))
            raise ValueError(
                f"{'/'.join(self.path)} cannot add its residual branch, {next(sizes)}, to its "
                f"shortcut, {next(sizes)}; average pooling in place of a stride rounds some sizes "
                "down; give images of another size, multiples of 32 always fit"
            )
        return residual + shortcut

    def match(self, x: jax.Array, residual: jax.Array, *, train: bool) -> jax.Array:
        """``x`` through the shortcut, if the shape of ``residual`` asks for it."""
        if x.shape == residual.shape:
            return x
        return self.shortcut(
            features=residual.shape[-1],
            stride=self.stride,
            dilation=self.dilation,
            preactivation=self.preactivation,
            conv=self.conv,
            norm=self.norm,
            name="shortcut",
        )(x, train=train)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al. 2015, figure 5 left).

    [B, H, W, C] to [B, H/stride, W/stride, features].
    """

    unused: ClassVar[tuple[str, ...]] = (
        "cardinality",
        "base_width",
        "stride_in_1x1",
        "block_dropout_rate",
    )

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, drop_path_rate: Rate = None) -> jax.Array:
        y = self.strided_conv(x, self.features, self.stride, 1, groups=1, train=train)
        y, x = self.at_once(y, x)
        y = self.last_conv(y, self.features, 3, 2, train=train)
        return self.act(self.add(x, y, train=train, drop_path_rate=drop_path_rate))


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolution (He et al. 2015, figure 5 right).

    The stride sits in the 3x3 convolution as in torchvision ("v1.5"), where the paper has it in
    the first 1x1.  [B, H, W, C] to [B, H/stride, W/stride, 4 * features].
    """

    expansion: ClassVar[int] = 4
    unused: ClassVar[tuple[str, ...]] = ("block_dropout_rate",)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, drop_path_rate: Rate = None) -> jax.Array:
        width = self.features * self.base_width // 64 * self.cardinality
        strides = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        y = self.pointwise_conv(x, width, strides[0], 1, train=train)
        y = self.strided_conv(y, width, strides[1], 2, groups=self.cardinality, train=train)
        y, x = self.at_once(y, x)
        y = self.last_conv(y, self.expansion * self.features, 1, 3, train=train)
        return self.act(self.add(x, y, train=train, drop_path_rate=drop_path_rate))


class PreActivationBlock(ResidualBlock):
    """A block that normalises and activates before each convolution (He et al. 2016, figure 4e).

    The first activation feeds the shortcut too, where there is one.
    """

    preactivation: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = (
        "cardinality",
        "base_width",
        "spatial_unit",
        "antialias",
        "average_down",
    )

    def residual(
        self,
        x: jax.Array,
        layers: tuple[tuple[int, int, int], ...],
        *,
        train: bool,
        drop_path_rate: Rate,
    ) -> jax.Array:
        """The whole block from (features, kernel size, stride) of each convolution."""
        y = preactivated = self.act(self.norm(name="norm1")(x, train=train))
        for i, (features, kernel_size, stride) in enumerate(layers, start=1):
            last = i == len(layers)
            if i > 1:
                y = self.act(self.norm(name=f"norm{i}")(y, train=train))
            if last and self.dropout_rate:
                y = nn.Dropout(self.dropout_rate)(y, deterministic=not train)
            zero = (
                {"kernel_init": nn.initializers.zeros} if last and self.zero_init_residual else {}
            )
            y = self.conv(
                features,
                kernel_size,
                stride,
                dilation=self._dilation_of(kernel_size, last=last),
                name=f"conv{i}",
                **zero,
            )(y)
        shortcut = x if x.shape == y.shape else preactivated
        return self.add(shortcut, y, train=train, drop_path_rate=drop_path_rate)

    def _dilation_of(self, kernel_size: int, *, last: bool) -> int:
        if kernel_size == 1:
            return 1
        return self.dilation if last else self.first_dilation


class PreActivationBasicBlock(PreActivationBlock):
    """Two 3x3 convolutions. [B, H, W, C] to [B, H/stride, W/stride, features]."""

    unused: ClassVar[tuple[str, ...]] = (*PreActivationBlock.unused, "stride_in_1x1")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, drop_path_rate: Rate = None) -> jax.Array:
        layers = ((self.features, 3, self.stride), (self.features, 3, 1))
        return self.residual(x, layers, train=train, drop_path_rate=drop_path_rate)


class PreActivationBottleneckBlock(PreActivationBlock):
    """1x1, 3x3 and 1x1 convolution. [B, H, W, C] to [B, H/stride, W/stride, 4 * features]."""

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, drop_path_rate: Rate = None) -> jax.Array:
        width = self.features
        strides = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        layers = ((width, 1, strides[0]), (width, 3, strides[1]), (self.expansion * width, 1, 1))
        return self.residual(x, layers, train=train, drop_path_rate=drop_path_rate)


def _average_down(x: jax.Array, stride: int) -> jax.Array:
    """3x3 average pooling; the zeros of the padding count."""
    return nn.avg_pool(x, (3, 3), (stride, stride), ((1, 1), (1, 1)))
