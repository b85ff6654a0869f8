"""The one residual network: stem, stages of blocks, head."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.module import InterceptorContext

from resnet_jax.models.attention import SpatialUnit
from resnet_jax.models.blocks import Rate, ResidualBlock
from resnet_jax.models.layers import (
    Activation,
    Conv,
    ConvPool,
    Stem,
    conv,
    max_pool,
    same_max_pool,
    torch_linear,
)
from resnet_jax.models.normalization import BatchNorm, GroupNorm, Shift, norm_type
from resnet_jax.models.shortcuts import ProjectionShortcut, Shortcut
from resnet_jax.models.stacking import loop_length
from resnet_jax.ops.rematerialization import keep_convolutions, remat


class FeatureInfo(NamedTuple):
    """What to expect of a feature map.

    Attributes:
        channels: its last axis.
        stride: pixels of the image from one of its pixels to the next.
    """

    channels: int
    stride: int


class Stage(nn.Module):
    """Blocks of one width and resolution; the first one carries the stride.

    Attributes:
        block: builds a block from stride, dilations and name.
        stride: in pixels.
        first_dilation: of the first convolution; the others have ``dilation``.
        dilation: in pixels.
        drop_path_rates: of each block; their number is that of the blocks.
        remat: keep only the input of each block for the backward pass.
        scan: run the blocks behind the first one as a loop, if there are enough.
    """

    block: Callable[..., ResidualBlock]
    stride: int
    first_dilation: int
    dilation: int
    drop_path_rates: tuple[float, ...]
    remat: bool
    scan: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def apply(block: ResidualBlock, x: jax.Array, drop_path_rate: Rate = None) -> jax.Array:
            return block(x, train=train, drop_path_rate=drop_path_rate)

        size = len(self.drop_path_rates)
        looped = loop_length(size) if self.scan else 0
        self._check_stacking(stacked=looped > 0)
        for i, rate in enumerate(self.drop_path_rates[: size - looped]):
            block = self.block(
                stride=self.stride if i == 0 else 1,
                first_dilation=self.first_dilation if i == 0 else self.dilation,
                dilation=self.dilation,
                name=f"block{i + 1}",
            )
            step = partial(apply, drop_path_rate=rate or None)
            x = (remat(step) if self.remat else step)(block, x)
        if looped:
            block = self.block(
                stride=1, first_dilation=self.dilation, dilation=self.dilation, name="blocks"
            )
            rates = self.drop_path_rates[1:]
            # The passes of a loop are apart, and need no barrier to stay so.
            kept = nn.remat(
                apply, prevent_cse=False, policy=None if self.remat else keep_convolutions
            )

            def body(block: ResidualBlock, x: jax.Array, rate: Rate) -> tuple[jax.Array, None]:
                return kept(block, x, rate), None

            x, _ = nn.scan(
                body,
                variable_axes={True: 0},
                split_rngs={True: True},
                length=looped,
                check_constancy_invariants=False,
            )(block, x, jnp.asarray(rates) if any(rates) else None)
        return x

    def _check_stacking(self, *, stacked: bool) -> None:
        params = self.variables.get("params", {})
        if self.is_initializing() or not params or ("blocks" in params) == stacked:
            return
        found, change = ("scan=False", "stack") if stacked else ("scan=True", "unstack")
        raise ValueError(
            f"the variables of {'/'.join(self.path)} are those of a network with {found}; give "
            f"{change}_blocks(variables)"
        )


_RATE = (lambda value: 0 <= value < 1, "in [0, 1)")
_POSITIVE = (lambda value: value > 0, "positive")
_OPTIONALLY_POSITIVE = (lambda value: value is None or value > 0, "positive or None")


def _is_norm(value: Any) -> bool:
    layer = norm_type(value)
    # Flax's own layers are called otherwise.
    return issubclass(layer, nn.Module) and "train" in inspect.signature(layer.__call__).parameters


def _is_batch_norm(value: Any) -> bool:
    return issubclass(norm_type(value), BatchNorm)


# What the value of a field must be, and how to say so.
_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_classes": (lambda value: value >= 0, "0, for no head, or more"),
    "in_channels": _OPTIONALLY_POSITIVE,
    "width": _POSITIVE,
    "cardinality": _POSITIVE,
    "base_width": _POSITIVE,
    "average_down": (lambda value: value in (None, "before", "behind"), "None, before or behind"),
    "norm": (
        _is_norm,
        "resnet_jax.BatchNorm or GroupNorm, or functools.partial(GroupNorm, num_groups=...)",
    ),
    "act": (callable, "a function such as jax.nn.silu"),
    "bn_decay": (lambda value: 0 <= value <= 1, "in [0, 1]"),
    "bn_epsilon": _POSITIVE,
    "bn_group_size": _OPTIONALLY_POSITIVE,
    "padding": (lambda value: value in ("symmetric", "same"), "symmetric or same"),
    "global_pool": (
        lambda value: value in ("avg", "max", "avgmax", "none"),
        "avg, max, avgmax or none",
    ),
    "output_stride": (lambda value: value in (8, 16, 32), "8, 16 or 32"),
    "dropout_rate": _RATE,
    "block_dropout_rate": _RATE,
    "drop_path_rate": _RATE,
}


class ResNet(nn.Module):
    """A residual network (He et al. 2015, https://arxiv.org/abs/1512.03385).

    Every member of the family is this class with other fields; `resnet_jax.create_model` knows
    them by name.  Parameters, running statistics and logits are float32; ``dtype`` is the type
    in which everything else computes.

    Attributes:
        stage_sizes: number of blocks of each stage.
        block: `BasicBlock`, `BottleneckBlock` or one of the pre-activation blocks.
        num_classes: number of logits; with 0 there is no head, and the pooled features come out.
        in_channels: of the images; by default the first ones decide.
        width: inner channels of the first stage; each stage doubles them.
        stem_widths: channels of the stem's convolutions; by default there is one, of ``width``.
        stem_kernel_size: of each of them, in pixels, odd.
        stem_stride: of the first of them, in pixels.
        stem_pool: halves the resolution between stem and first stage; None leaves it.
        shortcut: `ProjectionShortcut` (option B), `AveragePoolShortcut` (ResNet-D) or
            `PadShortcut` (option A).
        cardinality: groups of the 3x3 convolutions of bottlenecks (ResNeXt).
        base_width: channels of a group in the first stage; above 64 for Wide ResNets.
        attention: builds the channel attention of each block.
        spatial_unit: builds what replaces the first 3x3 convolution of each block.
        antialias: (x, stride) -> x; subsamples in place of strided 3x3 convolutions.
        average_down: 3x3 average pooling subsamples instead, before or behind them (ResNeSt).
        stride_in_1x1: bottlenecks have their stride in the first convolution ("v1").
        conv: builds convolutions: `conv` or `StandardizedConv`.
        norm: `BatchNorm`, `GroupNorm` or ``partial(GroupNorm, num_groups=16)``; `Shift` in the
            place of a folded BatchNorm.
        act: activation.
        bn_decay: share of the running statistics that a training step keeps, 0 to 1.
        bn_epsilon: added to the variance of BatchNorm.
        bn_group_size: consecutive examples that share BatchNorm's statistics in training; by
            default the whole batch, on however many devices it is.
        freeze_bn: use BatchNorm's running statistics in training too, and leave them as they are.
        padding: ``"same"`` pads 3x3 convolutions and max-pooling as TensorFlow does, and leaves
            the stem's convolution; only for weights of Flax's ImageNet example.
        zero_init_residual: start every block as the identity; torchvision's default is False.
        global_pool: how the head pools the last feature map: mean, maximum, the mean of both, or
            not at all, which needs ``num_classes=0``.
        output_stride: of the last feature map, 8, 16 or 32: later stages dilate instead of
            striding (Chen et al. 2017).
        dropout_rate: before the last layer; needs a ``dropout`` key in training.
        block_dropout_rate: between the convolutions of pre-activation blocks (Wide ResNet).
        drop_path_rate: of the last block; from 0 it rises linearly over the blocks.
        remat: recompute each block in the backward pass instead of keeping its inner activations.
        scan: run the blocks of a stage behind its first one, which are all alike, as one loop, in
            stages of five blocks and more: quicker to compile.  Their variables are stacked, see
            `resnet_jax.stack_blocks`.
        dtype: compute type, such as ``jnp.bfloat16``.
    """

    stage_sizes: tuple[int, ...]
    block: type[ResidualBlock]
    num_classes: int = 1000
    in_channels: int | None = None
    width: int = 64
    stem_widths: tuple[int, ...] | None = None
    stem_kernel_size: int = 7
    stem_stride: int = 2
    stem_pool: Callable[[jax.Array], jax.Array] | type[ConvPool] | None = max_pool
    shortcut: type[Shortcut] = ProjectionShortcut
    cardinality: int = 1
    base_width: int = 64
    attention: Callable[..., nn.Module] | None = None
    spatial_unit: Callable[..., SpatialUnit] | None = None
    antialias: Callable[[jax.Array, int], jax.Array] | None = None
    average_down: Literal["before", "behind"] | None = None
    stride_in_1x1: bool = False
    conv: Conv = conv
    norm: type[BatchNorm] | type[GroupNorm] | type[Shift] | partial[GroupNorm] = BatchNorm
    act: Activation = nn.relu
    bn_decay: float = 0.9
    bn_epsilon: float = 1e-5
    bn_group_size: int | None = None
    freeze_bn: bool | tuple[str, ...] = False
    padding: Literal["symmetric", "same"] = "symmetric"
    zero_init_residual: bool = False
    global_pool: Literal["avg", "max", "avgmax", "none"] = "avg"
    output_stride: Literal[8, 16, 32] = 32
    dropout_rate: float = 0.0
    block_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    remat: bool = False
    scan: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for name, (allowed, wanted) in _ALLOWED.items():
            value = getattr(self, name)
            try:
                fits = allowed(value)
            except TypeError:  # Of a comparison: it is of another type.
                fits = False
            if not fits:
                raise ValueError(f"{name} must be {wanted}, but it is {value!r}")
        if not self.stage_sizes or min(self.stage_sizes) < 1:
            raise ValueError(f"every stage needs a block, but stage_sizes is {self.stage_sizes}")
        if self.global_pool == "none" and self.num_classes:
            raise ValueError("global_pool='none' has no vector for a head; set num_classes=0")
        if self.padding == "same" and (
            self.conv is not conv or self.stem_pool not in (max_pool, None)
        ):
            raise ValueError(
                "padding='same' is for networks of plain convolutions and max-pooling; "
                "leave it at 'symmetric'"
            )
        if self.norm is not norm_type(self.norm) and _is_batch_norm(self.norm):
            raise ValueError(
                "norm: BatchNorm takes its arguments from bn_decay, bn_epsilon, bn_group_size and "
                "freeze_bn; set those"
            )
        unused: dict[type, tuple[str, ...]] = {self.block: self.block.unused}
        norm = norm_type(self.norm)
        if issubclass(norm, GroupNorm):
            unused[norm] = ("bn_decay", "bn_epsilon", "bn_group_size", "freeze_bn")
        for part, names in unused.items():
            for name in names:
                default = type(self).__dataclass_fields__[name].default
                if getattr(self, name) != default:
                    raise ValueError(
                        f"{name} does nothing with {part.__name__}; leave it at {default!r}"
                    )
        super().__post_init__()

    def setup(self) -> None:
        conv_layer = stem_conv = partial(self.conv, dtype=self.dtype)
        stem_pool = self.stem_pool
        if self.padding == "same":
            conv_layer = partial(conv_layer, padding="same")
            stem_pool = stem_pool and same_max_pool
        norm_layer = partial(self.norm, dtype=self.dtype)
        if _is_batch_norm(self.norm):
            norm_layer = partial(
                norm_layer,
                momentum=self.bn_decay,
                epsilon=self.bn_epsilon,
                group_size=self.bn_group_size,
                frozen=self.freeze_bn,
            )
        self.stem = Stem(
            self.stem_widths or (self.width,),
            self.stem_kernel_size,
            self.stem_stride,
            preactivation=self.block.preactivation,
            conv=stem_conv,
            norm=norm_layer,
            act=self.act,
        )
        if isinstance(stem_pool, type):
            stem_pool = stem_pool(conv_layer, norm_layer, self.act, name="stem_pool")
        self.pool = stem_pool
        num_blocks = sum(self.stage_sizes)
        stages, first_block, first_dilation = [], 0, 1
        for i, (size, (stride, dilation)) in enumerate(
            zip(self.stage_sizes, self._strides_and_dilations(), strict=True)
        ):
            block = partial(
                self.block,
                features=self.width * 2**i,
                conv=conv_layer,
                norm=norm_layer,
                act=self.act,
                shortcut=self.shortcut,
                attention=self.attention,
                spatial_unit=self.spatial_unit,
                antialias=self.antialias,
                average_down=self.average_down,
                cardinality=self.cardinality,
                base_width=self.base_width,
                stride_in_1x1=self.stride_in_1x1,
                zero_init_residual=self.zero_init_residual,
                dropout_rate=self.block_dropout_rate,
            )
            rates = tuple(
                self.drop_path_rate * j / max(1, num_blocks - 1)
                for j in range(first_block, first_block + size)
            )
            stages.append(
                Stage(
                    block,
                    stride,
                    first_dilation,
                    dilation,
                    rates,
                    self.remat,
                    self.scan,
                    name=f"stage{i + 1}",
                )
            )
            first_block, first_dilation = first_block + size, dilation
        self.stages = stages
        if self.block.preactivation:
            self.final_norm = norm_layer()
        self.dropout = nn.Dropout(self.dropout_rate)
        if self.num_classes:
            self.head = nn.Dense(self.num_classes, kernel_init=torch_linear, dtype=jnp.float32)

    def _strides_and_dilations(self) -> list[tuple[int, int]]:
        """Of each stage, in pixels; the first stage has a stride of 1."""
        reached = self.stem_stride * (1 if self.stem_pool is None else 2)
        stages, dilation = [], 1
        for i in range(len(self.stage_sizes)):
            stride = 1 if i == 0 else 2
            if reached * stride > self.output_stride:
                dilation *= stride
                stride = 1
            reached *= stride
            stages.append((stride, dilation))
        return stages

    @property
    def feature_info(self) -> dict[str, FeatureInfo]:
        """Channels and stride of each of `features`, without running anything."""
        info = {"stem": FeatureInfo((self.stem_widths or (self.width,))[-1], self.stem_stride)}
        stride = self.stem_stride * (1 if self.stem_pool is None else 2)
        for i, (stage_stride, _) in enumerate(self._strides_and_dilations()):
            stride *= stage_stride
            channels = self.width * 2**i * self.block.expansion
            info[f"stage{i + 1}"] = FeatureInfo(channels, stride)
        return info

    def features(
        self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Feature maps of every resolution, for detection, segmentation or inspection.

        Args:
            images: float[B, H, W, C], normalised.
            train: use the statistics of the batch, and update the running ones if
                ``batch_stats`` is mutable.
            mask: bool[B], which images count in the statistics of the batch; all by default.

        Returns:
            ``"stem"`` (before pooling) and ``"stage1"``, ``"stage2"``, ...: dtype[B, H', W', C'],
            as `feature_info` says.  Those of pre-activation networks are neither normalised nor
            activated.

        Raises:
            ValueError: the images have no four axes, another number of channels, no pixels, too few
                pixels for a pooling, or integers for values; or the variables are stacked where the
                blocks are not, or the other way round.
        """
        self._check_images(images)
        with _masked(mask):
            x = self.stem(images.astype(self.dtype), train=train)
            maps = {"stem": x}
            if isinstance(self.pool, ConvPool):
                x = self.pool(x, train=train)
            elif self.pool is not None:
                x = self.pool(x)
            for i, stage in enumerate(self.stages):
                x = maps[f"stage{i + 1}"] = stage(x, train=train)
        return maps

    def _check_images(self, images: jax.Array) -> None:
        channels = self.in_channels
        if channels is None and not self.is_initializing():
            stem = self.variables["params"]["stem"]
            channels = stem["conv" if "conv" in stem else "conv1"]["kernel"].shape[2]
        if images.ndim != 4 or channels not in (None, images.shape[-1]) or 0 in images.shape:
            raise ValueError(
                f"images must be [B, H, W, {channels or 'C'}], but have shape {list(images.shape)}"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images must be normalised floats, but are {images.dtype}; of bytes, give "
                "(images / 255 - mean) / std"
            )

    def __call__(
        self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> jax.Array:
        """Logits of normalised images.

        Args:
            images: float[B, H, W, C] of any height and width; 224 for ImageNet and 32 for CIFAR
                are customary.
            train: as in `features`.
            mask: as in `features`.

        Returns:
            float32[B, num_classes]; without a head the features, float32[B, C], or
            float32[B, H', W', C] where they are not pooled.

        Raises:
            ValueError: there is a head but no pooling, or see `features`.
        """
        x = self.features(images, train=train, mask=mask)[f"stage{len(self.stage_sizes)}"]
        if self.block.preactivation:
            with _masked(mask):
                x = self.act(self.final_norm(x, train=train))
        x = x.astype(jnp.float32)
        match self.global_pool:
            case "avg":
                x = jnp.mean(x, axis=(1, 2))
            case "max":
                x = jnp.max(x, axis=(1, 2))
            case "avgmax":
                x = (jnp.mean(x, axis=(1, 2)) + jnp.max(x, axis=(1, 2))) / 2
            case "none":
                pass
        x = self.dropout(x, deterministic=not train)
        return self.head(x) if self.num_classes else x


def _masked(mask: jax.Array | None) -> AbstractContextManager[None]:
    """Within it, BatchNorm counts the examples of the mask alone.

    What lies between the network and its normalisation layers need not know of it.
    """
    if mask is None:
        return nullcontext()

    def give(
        call: Callable[..., Any], args: Any, kwargs: dict[str, Any], context: InterceptorContext
    ) -> Any:
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            kwargs = kwargs | {"mask": mask}
        return call(*args, **kwargs)

    return nn.intercept_methods(give)
