"""Residual blocks, which compute ``F(x) + shortcut(x)``.

The options that only some blocks have are fields of these blocks.  A network is given a block and
its options as a partial: ``partial(BottleneckBlock, cardinality=32, base_width=4)``.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.attention import SpatialUnit
from resnet_jax.models.layers import (
    Activation,
    Conv,
    Norm,
    centered_average_pool,
    drop_path,
    is_scaled,
    relu,
)
from resnet_jax.models.normalization import (
    InstanceBatchNorm,
    InstanceNorm,
    activated,
    activates_itself,
)
from resnet_jax.models.shortcuts import ProjectionShortcut, Shortcut
from resnet_jax.ops.ordering import together
from resnet_jax.ops.platform import num_devices

Rate = jax.Array | float | None


class ResidualBlock(nn.Module):
    """The fields and layers that all blocks share.

    A block is called with (x, *, train, drop_path_rate).  ``x`` is float[B, H, W, C].
    ``drop_path_rate`` is float[] or None: the probability that an example skips the residual branch
    in training (Huang et al. 2016), which needs a PRNG key named ``dropout``.  The result is
    [B, ceil(H/stride), ceil(W/stride), expansion * features].

    Attributes:
        expansion: number of output channels divided by ``features``.
        preactivation: whether the block normalizes and activates before each convolution.
        normalized: whether the block normalizes.  One that does not is also called with
            ``input_variance``; see `NormalizerFreeBlock`.
        features: number of channels of the inner convolutions.
        stride: stride of the block in pixels, 1 or 2.
        conv: builds a convolution.
        norm: builds a normalization layer.
        act: activation function.
        first_dilation: dilation of the first 3x3 convolution, in pixels.
        dilation: dilation of the second 3x3 convolution, in pixels.  It is above 1 where a stage is
            dilated instead of strided.
        shortcut: the shortcut of a block whose input and output differ in shape.  Other blocks add
            their input unchanged.
        attention: builds channel attention, which is applied to the residual branch before the
            addition.
        zero_init_residual: initialize the last layer of the residual branch to zero, so that every
            block starts as the identity (Goyal et al. 2017, section 5.1).
    """

    expansion: ClassVar[int] = 1
    preactivation: ClassVar[bool] = False
    normalized: ClassVar[bool] = True

    features: int
    stride: int
    conv: Conv
    norm: Norm
    act: Activation = relu
    first_dilation: int = 1
    dilation: int = 1
    shortcut: type[Shortcut] = ProjectionShortcut
    attention: Callable[..., nn.Module] | None = None
    zero_init_residual: bool = False

    @property
    def out_features(self) -> int:
        """Number of output channels."""
        return self.expansion * self.features

    @nn.nowrap
    def projects(self, x: jax.Array) -> bool:
        """Return whether the shortcut of ``x`` has a layer, because the block changes its shape."""
        return self.stride > 1 or x.shape[-1] != self.out_features

    def at_once(self, y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return both inputs unchanged, with their gradients tied so that all-reduces can merge.

        The inputs are those of the last convolution and of the shortcut.  With several devices, the
        sums for the gradients of both normalizations are exchanged in one all-reduce.
        """
        if not self.projects(x) or num_devices() == 1:
            return y, x
        return together(y, x)

    def add(
        self, x: jax.Array, residual: jax.Array, *, train: bool, drop_path_rate: Rate
    ) -> jax.Array:
        """Return ``residual + shortcut(x)``, in the shape of ``residual``.

        Raises:
            ValueError: the shapes of the two differ.
        """
        if self.attention is not None:
            residual = self.attention(name="attention")(residual)
        residual = self.rescale(residual)
        if train and drop_path_rate is not None:
            residual = drop_path(residual, drop_path_rate, self.make_rng("dropout"))
        return residual + self.fitting(x, residual, train=train)

    def fitting(self, x: jax.Array, residual: jax.Array, *, train: bool) -> jax.Array:
        """Return ``shortcut(x)``, in the shape of ``residual``.

        Raises:
            ValueError: the shapes of the two differ.
        """
        shortcut = self.match(x, residual, train=train)
        if shortcut.shape != residual.shape:
            # The addition would fail, or broadcast silently where one of them has a single pixel.
            sizes = ("x".join(map(str, y.shape[1:])) for y in (residual, shortcut))
            raise ValueError(
                f"{'/'.join(self.path)} cannot add its residual branch, {next(sizes)}, to its "
                f"shortcut, {next(sizes)}; average pooling in place of a stride rounds some sizes "
                "down; give images of another size, multiples of 32 always fit"
            )
        return shortcut

    def rescale(self, residual: jax.Array) -> jax.Array:
        """Return the residual branch, multiplied by what a block has in place of normalization."""
        return residual

    def match(self, x: jax.Array, residual: jax.Array, *, train: bool) -> jax.Array:
        """Return ``x``, passed through the shortcut if its shape differs from ``residual``'s."""
        if x.shape == residual.shape:
            return x
        return self.shortcut(
            features=residual.shape[-1],
            stride=self.stride,
            dilation=self.dilation,
            first_dilation=self.first_dilation,
            preactivation=self.preactivation,
            conv=self.conv,
            norm=self.norm,
            name="shortcut",
        )(x, train=train)


class PostActivationBlock(ResidualBlock):
    """A block that normalizes after each convolution and activates after the addition.

    Attributes:
        spatial_unit: builds the unit that replaces the first 3x3 convolution together with its
            normalization and activation.
        antialias: (x, stride) -> x, which subsamples after a 3x3 convolution of stride 1 where
            there would be a strided one.
        drop_block: (x, key) -> x, which drops squares of pixels in training, such as a partial of
            `resnet_jax.models.layers.drop_block`.  It is applied after the normalization of the
            first 3x3 convolution, needs a PRNG key named ``dropout``, and has no effect in a block
            with a spatial unit.
        average_down: where 3x3 average pooling subsamples instead of a stride: before or after the
            3x3 convolution (ResNeSt).
        ibn: where each image is normalized by itself (IBN-Net, Pan et al. 2018).  ``"a"``: in the
            first half of the channels after the first convolution.  ``"b"``: the sum of residual
            branch and shortcut, before the last activation.
        widths: number of output channels of each convolution, as pruning leaves them.  None derives
            them from ``features``.
    """

    spatial_unit: Callable[..., SpatialUnit] | None = None
    antialias: Callable[[jax.Array, int], jax.Array] | None = None
    drop_block: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    average_down: Literal["before", "after"] | None = None
    ibn: Literal["a", "b"] | None = None
    widths: tuple[int, ...] | None = None

    @property
    def out_features(self) -> int:
        """Number of output channels."""
        return self.widths[-1] if self.widths else super().out_features

    @nn.nowrap
    def widths_or(self, *default: int) -> tuple[int, ...]:
        """Return the number of output channels of each convolution.

        Raises:
            ValueError: the block has another number of convolutions.
        """
        if self.widths is not None and len(self.widths) != len(default):
            raise ValueError(
                f"widths of a {type(self).__name__} must be {len(default)} numbers, but it is "
                f"{self.widths}"
            )
        return self.widths or default

    @property
    def unbound_spatial_unit(self) -> SpatialUnit | None:
        """A spatial unit outside any network, to read its class and options; None without one."""
        return self._spatial_unit(self.features, self.stride, groups=1, projects=False, parent=None)

    @nn.nowrap
    def _spatial_unit(
        self, features: int, stride: int, *, groups: int, **kwargs: Any
    ) -> SpatialUnit | None:
        if self.spatial_unit is None:
            return None
        return self.spatial_unit(
            features=features,
            stride=stride,
            dilation=self.first_dilation,
            groups=groups,
            conv=self.conv,
            norm=self.norm,
            act=self.act,
            **kwargs,
        )

    def pointwise_conv(
        self, x: jax.Array, features: int, stride: int, index: int, *, train: bool
    ) -> jax.Array:
        """Apply a 1x1 convolution, normalization and activation."""
        x = self.conv(features, 1, stride, name=f"conv{index}")(x)
        return activated(self._inner_norm(index), self.act, x, train=train)

    @nn.nowrap
    def _inner_norm(self, index: int) -> nn.Module:
        """Return the normalization after a convolution that is not the last of the block."""
        if self.ibn == "a" and index == 1:
            return InstanceBatchNorm(self.norm, name=f"norm{index}")
        return self.norm(name=f"norm{index}")

    def activated_sum(
        self, x: jax.Array, residual: jax.Array, *, train: bool, drop_path_rate: Rate
    ) -> jax.Array:
        """Return ``act(residual + shortcut(x))``, the result of the block."""
        x = self.add(x, residual, train=train, drop_path_rate=drop_path_rate)
        if self.ibn == "b":
            x = InstanceNorm(dtype=x.dtype, name="output_norm")(x, train=train)
        return self.act(x)

    def strided_conv(
        self,
        x: jax.Array,
        features: int,
        stride: int,
        index: int,
        *,
        groups: int,
        projects: bool,
        train: bool,
    ) -> jax.Array:
        """Apply the 3x3 convolution with the stride, or what replaces it, and activate.

        Args:
            x: float[B, H, W, C].
            features: number of output channels.
            stride: stride in pixels.
            index: number of the layer in its block, counted from 1.
            groups: number of groups of the convolution.
            projects: whether the block has a layer in its shortcut.
            train: whether normalization uses the statistics of the batch.
        """
        pooled = self.average_down if stride > 1 else None
        # As in timm, the filter is applied where dilation has replaced the stride, too.
        blurred = self.antialias is not None and (stride > 1 or self.first_dilation < self.dilation)
        conv_stride = 1 if pooled or blurred else stride
        if pooled == "before":
            x = centered_average_pool(x, stride)
        unit = self._spatial_unit(
            features, conv_stride, groups=groups, projects=projects, name=f"conv{index}"
        )
        if unit is None:
            x = self.conv(
                features,
                3,
                conv_stride,
                dilation=self.first_dilation,
                groups=groups,
                name=f"conv{index}",
            )(x)
            norm = self._inner_norm(index)
            if train and self.drop_block is not None:
                x = self.act(self.drop_block(norm(x, train=train), self.make_rng("dropout")))
            else:
                x = activated(norm, self.act, x, train=train)
        else:
            x = unit(x, train=train)
        if pooled == "after":
            x = centered_average_pool(x, stride)
        if blurred and self.antialias is not None:
            x = self.antialias(x, stride)
        return x

    def last_conv(self, y: jax.Array, features: int, kernel_size: int, index: int) -> jax.Array:
        """Apply the last convolution of the residual branch."""
        dilation = self.dilation if kernel_size > 1 else 1
        return self.conv(features, kernel_size, dilation=dilation, name=f"conv{index}")(y)

    def last_norm(
        self, x: jax.Array, y: jax.Array, index: int, *, train: bool, drop_path_rate: Rate
    ) -> jax.Array:
        """Return ``act(norm(y) + shortcut(x))``, the result of the block.

        Args:
            x: float[B, H, W, C], the input of the block.
            y: the output of the last convolution of the residual branch.
            index: number of the layer in its block, counted from 1.
            train: whether normalization uses the statistics of the batch.
            drop_path_rate: probability that an example skips the residual branch in training.
        """
        zero = {"scale_init": nn.initializers.zeros} if self.zero_init_residual else {}
        norm = self.norm(name=f"norm{index}", **zero)
        drops = train and drop_path_rate is not None
        only_added = self.attention is None and self.ibn != "b" and not drops
        if only_added and activates_itself(norm, self.act):
            return norm(y, train=train, shortcut=self.fitting(x, y, train=train), activate=True)
        y = norm(y, train=train)
        return self.activated_sum(x, y, train=train, drop_path_rate=drop_path_rate)


class BasicBlock(PostActivationBlock):
    """Two 3x3 convolutions (He et al. 2015, figure 5 left).

    Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), features].
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, drop_path_rate: Rate = None) -> jax.Array:
        widths = self.widths_or(self.features, self.features)
        y = self.strided_conv(
            x, widths[0], self.stride, 1, groups=1, projects=self.projects(x), train=train
        )
        y, x = self.at_once(y, x)
        y = self.last_conv(y, widths[1], 3, 2)
        return self.last_norm(x, y, 2, train=train, drop_path_rate=drop_path_rate)


class BottleneckBlock(PostActivationBlock):
    """A 1x1, a 3x3 and a 1x1 convolution (He et al. 2015, figure 5 right).

    The stride is in the 3x3 convolution, as in torchvision ("v1.5").  In the paper it is in the
    first 1x1 convolution.  Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), 4 * features].

    Attributes:
        cardinality: number of groups of the 3x3 convolution (ResNeXt, Xie et al. 2016).
        base_width: number of channels of each group in the first stage.  Wide ResNets have more
            than 64.
        reduce_first: number by which the number of channels of the first convolution is divided
            (2 in SENet-154).
        stride_in_1x1: put the stride in the first 1x1 convolution, as in the paper ("v1").
    """

    expansion: ClassVar[int] = 4

    cardinality: int = 1
    base_width: int = 64
    reduce_first: int = 1
    stride_in_1x1: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, drop_path_rate: Rate = None) -> jax.Array:
        unit = self.unbound_spatial_unit
        width = self.features * self.base_width // 64 * self.cardinality
        width *= unit.scale if unit else 1
        widths = self.widths_or(width // self.reduce_first, width, self.out_features)
        strides = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        y = self.pointwise_conv(x, widths[0], strides[0], 1, train=train)
        y = self.strided_conv(
            y,
            widths[1],
            strides[1],
            2,
            groups=self.cardinality,
            projects=self.projects(x),
            train=train,
        )
        y, x = self.at_once(y, x)
        y = self.last_conv(y, widths[2], 1, 3)
        return self.last_norm(x, y, 3, train=train, drop_path_rate=drop_path_rate)


class PreActivationBlock(ResidualBlock):
    """A block that normalizes and activates before each convolution (He et al. 2016, figure 4e).

    If the block has a shortcut layer, its input is the first activation.

    Attributes:
        dropout_rate: probability that training sets an activation before the last convolution to
            zero (Wide ResNet), which needs a PRNG key named ``dropout``.
    """

    preactivation: ClassVar[bool] = True

    dropout_rate: float = 0.0

    def residual(
        self,
        x: jax.Array,
        layers: tuple[tuple[int, int, int], ...],
        *,
        train: bool,
        drop_path_rate: Rate,
        input_scale: Rate = None,
    ) -> jax.Array:
        """Compute the whole block.

        Args:
            x: float[B, H, W, C].
            layers: (features, kernel size, stride) of each convolution.
            train: whether normalization uses the statistics of the batch, and dropout is active.
            drop_path_rate: probability that an example skips the residual branch in training.
            input_scale: factor of the first activation; None means 1.
        """
        y = activated(self.norm(name="norm1"), self.act, x, train=train)
        if input_scale is not None:
            y *= jnp.asarray(input_scale, y.dtype)
        preactivated = y
        for i, (features, kernel_size, stride) in enumerate(layers, start=1):
            last = i == len(layers)
            if i > 1:
                y = activated(self.norm(name=f"norm{i}"), self.act, y, train=train)
            if last and self.dropout_rate:
                y = nn.Dropout(self.dropout_rate)(y, deterministic=not train)
            zero = self.zero_init() if last and self.zero_init_residual else {}
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

    def zero_init(self) -> dict[str, nn.initializers.Initializer]:
        """Return the argument with which ``conv`` builds a convolution whose output is zero."""
        scaled = is_scaled(self.conv)
        return {"gain_init" if scaled else "kernel_init": nn.initializers.zeros}

    def _dilation_of(self, kernel_size: int, *, last: bool) -> int:
        if kernel_size == 1:
            return 1
        return self.dilation if last else self.first_dilation


class PreActivationBasicBlock(PreActivationBlock):
    """Two 3x3 convolutions, each after normalization and activation.

    Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), features].
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, drop_path_rate: Rate = None) -> jax.Array:
        layers = ((self.features, 3, self.stride), (self.features, 3, 1))
        return self.residual(x, layers, train=train, drop_path_rate=drop_path_rate)


class PreActivationBottleneckBlock(PreActivationBlock):
    """A 1x1, a 3x3 and a 1x1 convolution, each after normalization and activation.

    Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), 4 * features].

    Attributes:
        stride_in_1x1: put the stride in the first 1x1 convolution instead of the 3x3 convolution.
    """

    expansion: ClassVar[int] = 4

    stride_in_1x1: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, drop_path_rate: Rate = None) -> jax.Array:
        return self.residual(x, self.layers(), train=train, drop_path_rate=drop_path_rate)

    def layers(self) -> tuple[tuple[int, int, int], ...]:
        """Return (features, kernel size, stride) of each convolution."""
        width = self.features
        strides = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        return ((width, 1, strides[0]), (width, 3, strides[1]), (self.expansion * width, 1, 1))


class NormalizerFreeBlock(PreActivationBottleneckBlock):
    """A pre-activation bottleneck without normalization: NF-ResNet (Brock et al. 2021).

    The block computes ``alpha * F(act(x) / sigma) + shortcut``, where ``sigma`` is the standard
    deviation that its input would have with the first parameters.  The convolutions must be
    `ScaledStandardizedConv`, which keep the variance.  A shortcut layer starts again at the
    variance 1.  A block adds ``alpha ** 2`` to the variance.

    Attributes:
        alpha: factor of the residual branch.
        attention_gain: factor of the residual branch if it ends with attention, because its factors
            are about 1/2 at first.
        skip_init: multiply the residual branch by a parameter ``skip_gain`` as well (De and Smith
            2020).  With ``zero_init_residual``, it starts at zero instead of the gain of the last
            convolution.
    """

    normalized: ClassVar[bool] = False

    alpha: float = 0.2
    attention_gain: float = 2.0
    skip_init: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        drop_path_rate: Rate = None,
        input_variance: jax.Array | float = 1.0,
    ) -> jax.Array:
        """Compute the block.

        Args:
            x: float[B, H, W, C].
            train: whether dropout and stochastic depth are active.
            drop_path_rate: probability that an example skips the residual branch in training.
            input_variance: float[], the variance that ``x`` has with the first parameters.
        """
        return self.residual(
            x,
            self.layers(),
            train=train,
            drop_path_rate=drop_path_rate,
            input_scale=input_variance**-0.5,
        )

    def rescale(self, residual: jax.Array) -> jax.Array:
        """Return the residual branch times alpha, the gain of attention and the skip gain."""
        factor: jax.Array | float = self.alpha
        if self.attention is not None:
            factor = factor * self.attention_gain
        if self.skip_init:
            ones, zeros = nn.initializers.ones, nn.initializers.zeros
            init = zeros if self.zero_init_residual else ones
            factor = factor * self.param("skip_gain", init, (), jnp.float32)
        return residual * jnp.asarray(factor, residual.dtype)

    def zero_init(self) -> dict[str, nn.initializers.Initializer]:
        """Return the initializer of the last gain, unless the skip gain is zero instead."""
        return {} if self.skip_init else super().zero_init()
