"""The network: a stem, stages of residual blocks and a head."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.module import InterceptorContext
from flax.traverse_util import flatten_dict

from resnet_jax.models.attention_pool import AttentionPool
from resnet_jax.models.blocks import NormalizerFreeBlock, PostActivationBlock, ResidualBlock
from resnet_jax.models.layers import (
    Activation,
    Conv,
    Norm,
    StandardizedConv,
    blurred_conv,
    conv,
    drop_block,
    global_max_pool,
    identity,
    is_scaled,
    max_pool,
    relu,
    same_max_pool,
    torch_linear,
)
from resnet_jax.models.normalization import BatchNorm, activated
from resnet_jax.models.options import (
    BUILDER_OR_NONE,
    POSITIVE_OR_NONE,
    RATE,
    Allowed,
    BlockBuilder,
    Blocks,
    check_options,
    distinct_blocks,
    map_blocks,
    options_to_partials,
    unbound_block,
    unbound_norm,
)
from resnet_jax.models.shortcuts import ProjectionShortcut, Shortcut
from resnet_jax.models.stage import Stage
from resnet_jax.models.stem import ConvPool, Stem

# Ten times as many as the deepest published network. More would exhaust the memory.
_MOST_BLOCKS = 10_000
_COMPUTE_TYPES = ("float32", "bfloat16", "float16", "float64")
_ALLOWED: dict[str, Allowed] = {
    "num_classes": Allowed(lambda value: value >= 0, "0, for no head, or more"),
    "in_channels": POSITIVE_OR_NONE,
    "width": Allowed(
        lambda value: min(value if isinstance(value, tuple) else (value,)) > 0,
        "positive, or a tuple with a positive number for each stage",
    ),
    "stem_norm": BUILDER_OR_NONE,
    "act": Allowed(callable, "a function such as jax.nn.silu"),
    "padding": Allowed(lambda value: value in ("symmetric", "same"), "symmetric or same"),
    "global_pool": Allowed(
        lambda value: value in ("avg", "max", "avgmax", "none") or _is_attention_pool(value),
        "avg, max, avgmax or none, or AttentionPool",
    ),
    "output_stride": Allowed(lambda value: value in (8, 16, 32), "8, 16 or 32"),
    "dtype": Allowed(
        lambda value: value is not None and jnp.dtype(value).name in _COMPUTE_TYPES,
        f"one of {', '.join(_COMPUTE_TYPES)}, such as jnp.bfloat16",
    ),
    "dropout_rate": RATE,
    "drop_path_rate": RATE,
    "drop_path_rule": Allowed(lambda value: value in ("block", "stage"), "block or stage"),
    "drop_block_rate": RATE,
    "head_bias_init": Allowed(lambda value: math.isfinite(value), "a finite number"),
}

# Side in pixels of the squares that DropBlock drops in the third and the fourth stage, and the
# factor of their probability, as in timm.
_DROP_BLOCK: dict[int, dict[str, Any]] = {
    2: {"size": 5, "gamma_scale": 0.25},
    3: {"size": 3, "gamma_scale": 1.0},
}


def _is_attention_pool(value: Any) -> bool:
    return getattr(value, "func", value) is AttentionPool


class FeatureInfo(NamedTuple):
    """Channels and stride of a feature map.

    Attributes:
        channels: size of its last axis.
        stride: number of image pixels between neighboring pixels of the map.
    """

    channels: int
    stride: int


class ResNet(nn.Module):
    """A residual network (He et al. 2015, https://arxiv.org/abs/1512.03385).

    All members of the family are this class with different fields, and `resnet_jax.create_model`
    builds them by name.  Options of a block or a normalization layer are given as a partial, for
    example ``block=partial(BottleneckBlock, cardinality=32, base_width=4)`` or
    ``norm=partial(BatchNorm, epsilon=1e-3)``.

    Parameters, running statistics and logits are float32.  ``dtype`` is the type of all other
    computation.

    Two networks are equal if their fields are equal, where two partials are equal if they call the
    same function with the same arguments.  A network can be hashed, so that it can be a static
    argument of `jax.jit`.

    Attributes:
        stage_sizes: number of blocks of each stage.
        block: `BasicBlock`, `BottleneckBlock`, one of the pre-activation blocks or
            `NormalizerFreeBlock`, or a partial of one.  A tuple has one for each stage, or a tuple
            with one for each block of the stage.
        num_classes: number of logits.  With 0 there is no head, and the network returns the pooled
            features.
        in_channels: number of image channels.  With None, the first call of ``init`` decides.
        width: number of inner channels of the first stage, which each stage doubles, or a tuple
            with the number of each stage.
        stem_widths: number of channels of each convolution of the stem.  None means a single
            convolution with as many channels as the first stage has inner ones.
        stem_kernel_size: height and width of the kernels of the stem in pixels, odd.
        stem_stride: stride of the first convolution of the stem, in pixels.
        stem_pool: what halves the resolution between the stem and the first stage.  None keeps the
            resolution.
        shortcut: `ProjectionShortcut` (option B), `AveragePoolShortcut` (ResNet-D) or
            `PadShortcut` (option A).
        conv: builds convolutions: `conv`, `blurred_conv`, `StandardizedConv` or
            `ScaledStandardizedConv`.
        norm: builds normalization layers: `BatchNorm`, `GroupNorm` or a partial of one, `NoNorm`
            with `NormalizerFreeBlock`, or `Shift` in a network whose BatchNorm is folded.
            `EvoNorm` and `FilterResponseNorm`, only in pre-activation networks, activate too.
        stem_norm: builds the normalization layers of the stem.  None takes ``norm``.
        act: activation function.
        padding: ``"symmetric"`` pads as PyTorch does.  ``"same"`` pads 3x3 convolutions and
            max-pooling as TensorFlow does, but not the convolutions of the stem; it is only for
            weights of Flax's ImageNet example.
        zero_init_residual: initialize the last scale of each block to zero, so that every block
            starts as the identity.  The default of torchvision is False, too.
        global_pool: how the head pools the last feature map: ``"avg"``, ``"max"``, ``"avgmax"``
            (the mean of both) or ``"none"``, which needs ``num_classes=0``; or `AttentionPool` or
            a partial of it.
        output_stride: stride of the last feature map: 8, 16 or 32 pixels.  Below 32, later stages
            are dilated instead of strided (Chen et al. 2017).
        dropout_rate: probability that training sets a pooled feature to zero before the head, which
            needs a PRNG key named ``dropout``.
        drop_path_rate: probability that an example skips the last block in training (stochastic
            depth), which needs the same key.
        drop_path_rule: how the probability rises to ``drop_path_rate``.  ``"block"``: linearly from
            0 at the first block to the last one (Huang et al. 2016, timm).  ``"stage"``: equal in
            all blocks of a stage, ``drop_path_rate * (i + 1) / (n + 1)`` in the i-th of n stages,
            as in the ResNet-RS of the TensorFlow Model Garden.
        drop_block_rate: share of the pixels that DropBlock drops in training in squares of 5 pixels
            in the third stage, where timm reduces it to a quarter, and of 3 pixels in the fourth.
            It needs the same key.
        head_bias_init: value that all biases of the head start from.
        remat: recompute each block in the backward pass instead of storing its activations.
        scan: run all blocks of a stage after the first one as a loop, in stages of five blocks or
            more, so that the network compiles faster.  Their variables are stacked; see
            `resnet_jax.stack_blocks`.
        dtype: compute type, such as ``jnp.bfloat16``.
    """

    stage_sizes: tuple[int, ...]
    block: Blocks
    num_classes: int = 1000
    in_channels: int | None = None
    width: int | tuple[int, ...] = 64
    stem_widths: tuple[int, ...] | None = None
    stem_kernel_size: int = 7
    stem_stride: int = 2
    stem_pool: Callable[[jax.Array], jax.Array] | type[ConvPool] | None = max_pool
    shortcut: type[Shortcut] = ProjectionShortcut
    conv: Conv = conv
    norm: Norm = BatchNorm
    stem_norm: Norm | None = None
    act: Activation = relu
    padding: Literal["symmetric", "same"] = "symmetric"
    zero_init_residual: bool = False
    global_pool: Literal["avg", "max", "avgmax", "none"] | Callable[..., AttentionPool] = "avg"
    output_stride: Literal[8, 16, 32] = 32
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_rule: Literal["block", "stage"] = "block"
    drop_block_rate: float = 0.0
    head_bias_init: float = 0.0
    remat: bool = False
    scan: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            allowed.check(name, getattr(self, name))
        norm = unbound_norm(self.norm)
        for builder in distinct_blocks(self.block):
            check_options(unbound_block(builder), norm)
        if not self.stage_sizes or min(self.stage_sizes) < 1:
            raise ValueError(f"every stage needs a block, but stage_sizes is {self.stage_sizes}")
        if sum(self.stage_sizes) > _MOST_BLOCKS:
            raise ValueError(
                f"a network has at most {_MOST_BLOCKS:,} blocks, but stage_sizes is "
                f"{self.stage_sizes}"
            )
        self._check_lengths()
        self._check_drop_block()
        if _activates(norm):
            if not self.unbound_block.preactivation:
                raise ValueError(
                    f"{type(norm).__name__} activates, and the last normalization of a "
                    f"{type(self.unbound_block).__name__} must not; take a pre-activation network"
                )
            if self.act not in (relu, identity):
                raise ValueError(
                    f"act does nothing with {type(norm).__name__}, which activates; leave it out"
                )
        if self.global_pool == "none" and self.num_classes:
            raise ValueError("global_pool='none' has no vector for a head; set num_classes=0")
        if not self.unbound_block.normalized and (
            getattr(norm, "leaves", ()) or self.conv in (conv, blurred_conv, StandardizedConv)
        ):
            raise ValueError(
                "a network without normalization needs norm=NoNorm and conv=ScaledStandardizedConv "
                "from resnet_jax.models; leave norm and conv unchanged"
            )
        if self.padding == "same" and (
            self.conv is not conv or self.stem_pool not in (max_pool, None)
        ):
            raise ValueError(
                "padding='same' is for networks of plain convolutions and max-pooling; "
                "leave it at 'symmetric'"
            )
        super().__post_init__()

    @nn.nowrap
    def _check_lengths(self) -> None:
        sizes = self.stage_sizes
        if isinstance(self.width, tuple) and len(self.width) != len(sizes):
            raise ValueError(
                f"width lists {len(self.width)} stages, but stage_sizes is {sizes}; give both"
            )
        if isinstance(self.block, tuple):
            lengths = [len(part) if isinstance(part, tuple) else None for part in self.block]
            if len(lengths) != len(sizes) or any(
                length not in (None, size) for length, size in zip(lengths, sizes, strict=True)
            ):
                raise ValueError(
                    f"this network lists its blocks, and they do not fit stage_sizes={sizes}; "
                    "leave stage_sizes out, or give block too"
                )
        listed = [getattr(unbound_block(b), "widths", None) for b in distinct_blocks(self.block)]
        if all(listed) and self.width != ResNet.width:
            raise ValueError("width does nothing in a network whose blocks list their widths")
        distinct = [unbound_block(builder) for builder in distinct_blocks(self.block)]
        if len({block.preactivation for block in distinct}) > 1:
            raise ValueError("block mixes pre-activation blocks with others, which do not fit")
        if len({block.normalized for block in distinct}) > 1:
            raise ValueError("block mixes NormalizerFreeBlock with others, which do not fit")

    @nn.nowrap
    def _check_drop_block(self) -> None:
        if not self.drop_block_rate:
            return
        for stage, builders in enumerate(self.blocks):
            for block in map(unbound_block, builders if stage in _DROP_BLOCK else ()):
                if not isinstance(block, PostActivationBlock) or block.spatial_unit is not None:
                    raise ValueError(
                        "drop_block_rate is for blocks that activate after the addition and have "
                        f"no spatial unit, unlike the {type(block).__name__} of stage "
                        f"{stage + 1}; leave it at 0.0"
                    )
        if len(self.stage_sizes) <= min(_DROP_BLOCK):
            raise ValueError(
                "drop_block_rate does nothing in a network without a third stage; leave it at 0.0"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResNet) and _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash(_values(self))

    @nn.nowrap
    def clone(self, *, parent: Any = None, **updates: Any) -> Self:
        """Return a copy with some fields or options changed.

        Args:
            parent: the module that the copy belongs to.
            **updates: fields of the network, and options of its blocks and normalization layers, by
                the names that `resnet_jax.create_model` knows, for example ``freeze_bn=True``.

        Raises:
            ValueError: a value is not allowed, or the network has no such option.
            TypeError: there is no field or option of such a name.
        """
        fields = options_to_partials({"block": self.block, "norm": self.norm} | updates)
        return super().clone(parent=parent, **fields)

    @property
    def unbound_block(self) -> ResidualBlock:
        """The first block, outside the network, to read its class and options."""
        return unbound_block(distinct_blocks(self.block)[0])

    @property
    def blocks(self) -> tuple[tuple[BlockBuilder, ...], ...]:
        """The builders of the blocks of each stage."""
        stages = (
            self.block if isinstance(self.block, tuple) else (self.block,) * len(self.stage_sizes)
        )
        return tuple(
            stage if isinstance(stage, tuple) else (stage,) * size
            for stage, size in zip(stages, self.stage_sizes, strict=True)
        )

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Number of inner channels of each stage."""
        if isinstance(self.width, tuple):
            return self.width
        return tuple(self.width * 2**i for i in range(len(self.stage_sizes)))

    @property
    def unbound_norm(self) -> nn.Module:
        """A normalization layer outside the network, with the options of all such layers."""
        return unbound_norm(self.norm)

    def setup(self) -> None:
        conv_layer = partial(self.conv, dtype=self.dtype)
        if is_scaled(self.conv):
            conv_layer = partial(conv_layer, act=self.act)
        stem_conv = conv_layer
        stem_pool = self.stem_pool
        if self.padding == "same":
            conv_layer = partial(conv_layer, padding="same")
            stem_pool = stem_pool and same_max_pool
        norm_layer = partial(self.norm, dtype=self.dtype)
        preactivation = self.unbound_block.preactivation
        act = identity if _activates(self.unbound_norm) else self.act
        self.stem = Stem(
            self.stem_widths or self.stage_widths[:1],
            self.stem_kernel_size,
            self.stem_stride,
            preactivation=preactivation,
            conv=stem_conv,
            norm=partial(self.stem_norm or self.norm, dtype=self.dtype),
            act=act,
        )
        if isinstance(stem_pool, type):
            stem_pool = stem_pool(conv_layer, norm_layer, act, name="stem_pool")
        self.pool = stem_pool
        variances = self._input_variances()
        stages, first_block, first_dilation = [], 0, 1
        for i, (builders, (stride, dilation)) in enumerate(
            zip(self.blocks, self._strides_and_dilations(), strict=True)
        ):
            size = len(builders)
            blocks = tuple(
                partial(
                    builder,
                    features=self.stage_widths[i],
                    conv=conv_layer,
                    norm=norm_layer,
                    act=act,
                    shortcut=self.shortcut,
                    zero_init_residual=self.zero_init_residual,
                    **self._drop_block_of(i),
                )
                for builder in builders
            )
            rates = self._drop_path_rates()[first_block : first_block + size]
            stages.append(
                Stage(
                    blocks,
                    stride,
                    first_dilation,
                    dilation,
                    rates,
                    variances[i] if variances else None,
                    self.remat,
                    self.scan and are_equal(builders[1:]),
                    name=f"stage{i + 1}",
                )
            )
            first_block, first_dilation = first_block + size, dilation
        self.stages = stages
        if preactivation:
            self.final_norm = norm_layer()
        if not isinstance(self.global_pool, str):
            self.attention_pool = self.global_pool(dtype=self.dtype)
        self.dropout = nn.Dropout(self.dropout_rate)
        if self.num_classes:
            self.head = nn.Dense(
                self.num_classes,
                kernel_init=torch_linear,
                bias_init=nn.initializers.constant(self.head_bias_init),
                dtype=jnp.float32,
            )

    def _drop_block_of(self, stage: int) -> dict[str, Any]:
        """Return the additional argument of the blocks of a stage, counted from 0."""
        if not self.drop_block_rate or stage not in _DROP_BLOCK:
            return {}
        return {"drop_block": partial(drop_block, rate=self.drop_block_rate, **_DROP_BLOCK[stage])}

    def _drop_path_rates(self) -> tuple[float, ...]:
        """Return the probability of each block of the network that an example skips it."""
        rate, sizes = self.drop_path_rate, self.stage_sizes
        if self.drop_path_rule == "stage":
            of_stages = [rate * (i + 2) / (len(sizes) + 1) for i in range(len(sizes))]
            return tuple(of_stages[i] for i, size in enumerate(sizes) for _ in range(size))
        num_blocks = sum(sizes)
        return tuple(rate * i / max(1, num_blocks - 1) for i in range(num_blocks))

    def _strides_and_dilations(self) -> list[tuple[int, int]]:
        """Return stride and dilation of each stage in pixels; the first stage has a stride of 1."""
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

    def _input_variances(self) -> list[tuple[float, ...]] | None:
        """Return the variance of each block's input at first, for blocks without normalization.

        Every block adds the variance of its residual branch, and the shortcut layer of the first
        block of a stage starts again at 1.  The result is None if the blocks normalize.
        """
        stages, before = [], 1.0
        for builders in self.blocks:
            sums = [1.0]
            for builder in builders:
                block = unbound_block(builder)
                if not isinstance(block, NormalizerFreeBlock):
                    return None
                sums.append(sums[-1] + block.alpha**2)
            stages.append((before, *sums[1:-1]))
            before = sums[-1]
        return stages

    @property
    def feature_info(self) -> dict[str, FeatureInfo]:
        """Channels and stride of each feature map that `features` returns."""
        channels = (self.stem_widths or self.stage_widths)[-1 if self.stem_widths else 0]
        info = {"stem": FeatureInfo(channels, self.stem_stride)}
        stride = self.stem_stride * (1 if self.stem_pool is None else 2)
        for i, (stage_stride, _) in enumerate(self._strides_and_dilations()):
            stride *= stage_stride
            channels = unbound_block(self.blocks[i][-1], self.stage_widths[i]).out_features
            info[f"stage{i + 1}"] = FeatureInfo(channels, stride)
        return info

    def features(
        self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Return feature maps of every resolution, for detection, segmentation or inspection.

        Args:
            images: float[B, H, W, C], normalized.
            train: whether BatchNorm uses the statistics of the batch.  It then also updates its
                running statistics if the collection ``batch_stats`` is mutable.
            mask: bool[B], which images count in the statistics of the batch.  All of them count by
                default.

        Returns:
            ``"stem"`` (before pooling), ``"stage1"``, ``"stage2"`` and so on, each
            dtype[B, H', W', C'].  `feature_info` describes them.  The maps of pre-activation
            networks are neither normalized nor activated.

        Raises:
            ValueError: the images do not have four axes, have another number of channels than the
                network, have too few pixels, or are integers; the variables are stacked and the
                blocks are not, or vice versa; or ``freeze_bn`` names a layer that does not exist.
        """
        self._check_images(images)
        if not self.is_initializing():
            self._check_frozen()
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
                f"images must be normalized floats, but are {images.dtype}; convert bytes with "
                "(images / 255 - mean) / std"
            )

    def _check_frozen(self) -> None:
        """Raise `ValueError` if a path in ``freeze_bn`` is not that of a BatchNorm."""
        frozen = getattr(self.unbound_norm, "frozen", False)
        if isinstance(frozen, bool) or "batch_stats" not in self.variables:
            return
        statistics = flatten_dict(self.variables["batch_stats"])
        layers = dict.fromkeys("/".join(path[:-1]) for path in statistics)
        for layer in frozen:
            if layer not in layers:
                near = difflib.get_close_matches(layer, layers) or list(layers)[:3]
                raise ValueError(
                    f"freeze_bn: the network has no BatchNorm {layer!r}; its layers have paths "
                    f"such as {', '.join(map(repr, near))}"
                )

    def __call__(
        self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return the logits of normalized images.

        Args:
            images: float[B, H, W, C] of any height and width.  Usual sizes are 224 for ImageNet and
                32 for CIFAR.
            train: as for `features`; with True, dropout and stochastic depth are active, too.
            mask: as for `features`.

        Returns:
            float32[B, num_classes].  Without a head, the features: float32[B, C], or
            float32[B, H', W', C] if they are not pooled.

        Raises:
            ValueError: as for `features`.
        """
        features = self.features(images, train=train, mask=mask)
        return self.forward_head(features, train=train, mask=mask)

    def forward_head(
        self,
        features: jax.Array | Mapping[str, jax.Array],
        *,
        pre_logits: bool = False,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Return the logits of feature maps, or what the head would turn into logits.

        It normalizes and activates the last feature map if the network is pre-activation, pools it,
        and applies dropout and the head.

        Args:
            features: the last feature map, dtype[B, H', W', C], or all maps as `features` returns
                them.
            pre_logits: leave out the head, as ``num_classes=0`` does.
            train: as for `__call__`.
            mask: as for `features`.

        Returns:
            float32[B, num_classes].  With ``pre_logits`` or without a head, the pooled features:
            float32[B, C], or float32[B, H', W', C] if ``global_pool`` is ``"none"``.
        """
        if isinstance(features, Mapping):
            features = features[f"stage{len(self.stage_sizes)}"]
        x = features
        if self.unbound_block.preactivation:
            with _masked(mask):
                act = identity if _activates(self.unbound_norm) else self.act
                x = activated(self.final_norm, act, x, train=train)
        if isinstance(self.global_pool, str):
            x = x.astype(jnp.float32)
        match self.global_pool:
            case "avg":
                x = jnp.mean(x, axis=(1, 2))
            case "max":
                x = global_max_pool(x)
            case "avgmax":
                x = (jnp.mean(x, axis=(1, 2)) + global_max_pool(x)) / 2
            case "none":
                pass
            case _:
                x = self.attention_pool(x).astype(jnp.float32)
        x = self.dropout(x, deterministic=not train)
        if self.is_initializing():
            # All layers have their variables only now.
            self._check_frozen()
        return self.head(x) if self.num_classes and not pre_logits else x

    def forward_from(self, features: jax.Array, stage: int) -> jax.Array:
        """Return the logits of the feature map of any stage, in evaluation.

        This is what the network computes after that stage, for example for the gradient of a logit
        with respect to a feature map.

        Args:
            features: the feature map of the stage, dtype[B, H', W', C], as `features` returns it.
            stage: number of the stage, from 1.

        Returns:
            as for `forward_head`.
        """
        for later in self.stages[stage:]:
            features = later(features, train=False)
        return self.forward_head(features)

    def embed(
        self, images: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return the pooled features of images, for retrieval or for another classifier.

        Args:
            images: as for `__call__`.
            train: as for `__call__`.
            mask: as for `features`.

        Returns:
            float32[B, C], which is what the same network with ``num_classes=0`` returns.

        Raises:
            ValueError: as for `features`.
        """
        features = self.features(images, train=train, mask=mask)
        return self.forward_head(features, pre_logits=True, train=train, mask=mask)


def _masked(mask: jax.Array | None) -> AbstractContextManager[None]:
    """Return a context in which every BatchNorm layer is called with the mask.

    Otherwise the stem, stages, blocks, shortcuts and spatial units, and the functions that
    rematerialization and loops wrap, would all pass the mask on without reading it.  Intercepting
    every method call takes 5 % of the time of tracing: 0.05 of 1.04 s for a training step of
    resnet152 (CPU time, least of nine runs in turn; 2 cores, jax 0.10, November 2026).  It takes no
    time when the compiled program runs.
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


def are_equal(builders: Sequence[BlockBuilder]) -> bool:
    """Return whether all builders build blocks with the same class and options."""
    distinct = distinct_blocks(tuple(builders))
    return len({_comparable(unbound_block(builder)) for builder in distinct}) <= 1


def _activates(norm: nn.Module) -> bool:
    """Return whether a normalization layer contains its activation."""
    return getattr(norm, "activates", False)


def _values(network: ResNet) -> tuple[Any, ...]:
    """Return the values of all fields, in a form that can be compared and hashed."""
    parts = {"block": map_blocks(unbound_block, network.block), "norm": network.unbound_norm}
    return type(network), tuple(
        _comparable(parts.get(field.name, getattr(network, field.name)))
        for field in dataclasses.fields(network)
        if field.name != "parent"
    )


def _comparable(value: Any) -> Any:
    # Python compares partials by identity.  Blocks and normalization layers are compared by the
    # values of their fields, so that a default value may be given or left out.
    if isinstance(value, partial):
        return value.func, value.args, frozenset(_items(value.keywords))
    if isinstance(value, tuple):
        return tuple(map(_comparable, value))
    if isinstance(value, nn.Module) and value.parent is None:
        fields = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if field.name != "parent"
        }
        return type(value), frozenset(_items(fields))
    return value


def _items(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, _comparable(value)) for name, value in values.items())
