"""Networks by name, with overrides."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack

import flax.linen as nn
import jax

from resnet_jax.models.attention import SpatialUnit
from resnet_jax.models.attention_pool import AttentionPool
from resnet_jax.models.layers import Activation, Conv, Norm
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.options import Blocks, options_to_partials
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.shortcuts import Shortcut
from resnet_jax.models.stem import ConvPool
from resnet_jax.models.variants import SMALL_INPUT, fields_of
from resnet_jax.suggestions import did_you_mean, nearest


class Overrides(TypedDict, total=False):
    """The keyword arguments of `create_model`, which describes them."""

    num_classes: int
    in_channels: int | None
    stage_sizes: tuple[int, ...]
    width: int | tuple[int, ...]
    stem_widths: tuple[int, ...] | None
    stem_kernel_size: int
    stem_stride: int
    stem_pool: Callable[[jax.Array], jax.Array] | type[ConvPool] | None
    block: Blocks
    shortcut: type[Shortcut]
    attention: Callable[..., nn.Module] | None
    spatial_unit: Callable[..., SpatialUnit] | None
    antialias: Callable[[jax.Array, int], jax.Array] | None
    average_down: Literal["before", "after", "behind"] | None
    cardinality: int
    base_width: int
    reduce_first: int
    ibn: Literal["a", "b"] | None
    stride_in_1x1: bool
    alpha: float
    skip_init: bool
    conv: Conv
    norm: Norm
    stem_norm: Norm | None
    norm_scale_init: nn.initializers.Initializer
    bn_decay: float
    bn_epsilon: float
    bn_group_size: int | None
    bn_axis_name: str | tuple[str, ...] | None
    bn_axis_index_groups: Sequence[Sequence[int]] | None
    bn_fast_variance: bool
    freeze_bn: bool | tuple[str, ...]
    act: Activation
    padding: Literal["symmetric", "same"]
    zero_init_residual: bool
    global_pool: Literal["avg", "max", "avgmax", "none"] | Callable[..., AttentionPool]
    output_stride: Literal[8, 16, 32]
    dropout_rate: float
    block_dropout_rate: float
    drop_path_rate: float
    drop_path_rule: Literal["block", "stage"]
    drop_block_rate: float
    head_bias_init: float
    remat: bool
    scan: bool
    dtype: Any


def create_model(
    variant: str | None = None,
    /,
    *,
    name: str | None = None,
    small_input: bool = False,
    **overrides: Unpack[Overrides],
) -> ResNet:
    """Return a network of the family as an unbound Flax Linen module.

    Args:
        variant: one of the names that `list_models` returns.
        name: name of the Linen module.  Without ``variant``, it is the name of the network, so that
            ``create_model(name="resnet18")`` works too.
        small_input: prepare an ImageNet network for images of about 32 pixels: the stem is a 3x3
            convolution with stride 1 and no pooling, as in the CIFAR networks.
        num_classes: number of logits.  With 0 there is no head, and the network returns the pooled
            features.
        in_channels: number of image channels.  None lets the first images decide.
        stage_sizes: number of blocks of each stage.
        width: number of inner channels of the first stage, which each stage doubles, or a tuple
            with the number of each stage.
        stem_widths: number of channels of each convolution of the stem.  None means one convolution
            of ``width`` channels.
        stem_kernel_size: height and width of the kernels of the stem in pixels, odd.
        stem_stride: stride of the first convolution of the stem, in pixels.
        stem_pool: pooling between the stem and the first stage: a function or
            `resnet_jax.models.stem.ConvPool`.  None leaves it out.
        block: `BasicBlock`, `BottleneckBlock`, `PreActivationBasicBlock` or
            `PreActivationBottleneckBlock`, or a partial of one that sets some of its options.  A
            tuple has one for each stage, or a tuple with one for each block of the stage.
        shortcut: `ProjectionShortcut`, `AveragePoolShortcut`, `SpatialShortcut` or `PadShortcut`
            from `resnet_jax.models.shortcuts`.
        attention: builds the channel attention of each block, such as
            `resnet_jax.models.attention.SqueezeExcite`.  None means no attention.
        spatial_unit: builds what replaces the first 3x3 convolution of each block, such as
            `resnet_jax.models.attention.SplitAttention`.  None keeps the convolution.
        antialias: a function (x, stride) -> x that subsamples after a 3x3 convolution in place of a
            stride, such as `resnet_jax.models.layers.blur_pool`.
        average_down: ``"before"`` or ``"after"`` replaces the stride of a 3x3 convolution by
            average pooling before or after it (ResNeSt).
        cardinality: number of groups of the 3x3 convolutions of a `BottleneckBlock` (ResNeXt).
        base_width: number of channels of each group in the first stage.  Wide ResNets have more
            than 64.
        reduce_first: number by which the number of channels of the first convolution of a
            bottleneck is divided (2 in SENet-154).
        ibn: ``"a"`` normalizes half of the channels after the first convolution of each block by
            image, and ``"b"`` the output of each block (IBN-Net).
        stride_in_1x1: put the stride of bottlenecks in their first 1x1 convolution, as in the paper
            of 2015 ("v1").
        alpha: factor of the residual branches of a network without normalization.
        skip_init: multiply these branches by a parameter as well, which starts at zero if
            ``zero_init_residual`` is set.
        conv: builds convolutions: `conv`, `blurred_conv`, `StandardizedConv` or
            `ScaledStandardizedConv` from `resnet_jax.models.layers`, or a partial of one, such as
            ``partial(conv, kernel_init=...)``.
        norm: `BatchNorm`, `GroupNorm` or a partial of one, such as
            ``partial(GroupNorm, num_groups=16)``.  `resnet_jax.models.normalization` has more.
        stem_norm: normalization of the stem, if it differs from ``norm``.
        norm_scale_init: initializer of the scale of normalization layers, such as
            `resnet_jax.models.layers.uniform_scale`.  ``zero_init_residual`` sets the last ones of
            each block to zero nevertheless.
        bn_decay: fraction of BatchNorm's running statistics that a training step keeps, 0 to 1.
        bn_epsilon: number that is added to the variance in BatchNorm.
        bn_group_size: number of consecutive images that share BatchNorm's statistics in training.
            None uses the whole batch, across all devices.
        bn_axis_name: name of the axis of `jax.pmap` or `jax.shard_map` whose devices share
            BatchNorm's statistics, or a tuple of names.  None uses the batch of each device alone.
        bn_axis_index_groups: groups of indices along this axis that share statistics, such as
            ``((0, 1), (2, 3))``.  None shares them between all devices.
        bn_fast_variance: compute the variance in BatchNorm in one pass.  False takes a second pass,
            which is exact even if the mean is much larger than the standard deviation.
        freeze_bn: use BatchNorm's running statistics in training, too, without updating them.  A
            tuple of module paths such as ``("stem/norm",)`` freezes only these layers.  A path
            that does not exist is refused when the network is initialized or applied.
        act: activation function, such as `jax.nn.silu`.
        padding: ``"symmetric"`` pads as PyTorch does.  ``"same"`` pads as TensorFlow does, for
            weights of Flax's ImageNet example.
        zero_init_residual: start every block as the identity.
        global_pool: how the head pools: ``"avg"``, ``"max"``, ``"avgmax"`` (the mean of both) or
            ``"none"``, which needs ``num_classes=0``; or
            `resnet_jax.models.attention_pool.AttentionPool` or a partial of it (CLIP).
        output_stride: stride of the last feature map: 8, 16 or 32 pixels.  Below 32, later stages
            are dilated instead of strided.
        dropout_rate: probability that training sets a pooled feature to zero before the head.
        block_dropout_rate: probability that training sets an activation between the convolutions of
            a pre-activation block to zero (Wide ResNet).
        drop_path_rate: probability that an example skips the last block in training (stochastic
            depth).
        drop_path_rule: ``"block"`` raises this probability linearly from 0 at the first block, and
            ``"stage"`` from stage to stage (ResNet-RS in TensorFlow).
        drop_block_rate: share of the pixels that DropBlock drops in training, in squares, in the
            third and the fourth stage, as in timm.
        head_bias_init: value that all biases of the head start from.
        remat: recompute each block in the backward pass instead of storing its activations.
        scan: run the blocks of a long stage as a loop, which compiles faster; see `stack_blocks`.
        dtype: compute type, such as ``jnp.bfloat16``.  Parameters and logits stay float32.

    Returns:
        A module.  ``model.init(key, images, train=False)`` returns its variables, and
        ``model.apply(variables, images, train=False)`` returns logits.  Without overrides, the
        fields have the values that the publication or the reference implementation gives them.

    Raises:
        ValueError: the name is unknown, and the message suggests the most similar names; a value is
            not allowed; or the network has no such option.
        TypeError: there is no override of such a name; the message suggests the most similar one.

    >>> create_model("resnet18", num_classes=10).num_classes
    10
    """
    if variant is None:
        variant, name = name, None
    if variant is None:
        raise TypeError("create_model needs the name of a network, such as 'resnet50'")
    row = fields_of(variant)
    for key in overrides:
        if key not in Overrides.__annotations__:
            near = nearest(key, Overrides.__annotations__, count=1)
            hint = did_you_mean(near, otherwise="see help(create_model).")
            raise TypeError(f"create_model has no override {key!r}: {hint}")
    fields = {"norm": BatchNorm} | row | (SMALL_INPUT if small_input else {}) | overrides
    return ResNet(**options_to_partials(fields), name=name)
