"""The table of the networks: one row of fields and options for each name."""

import fnmatch
from functools import partial
from typing import Any

from resnet_jax.models import pruned
from resnet_jax.models.attention import (
    EfficientChannelAttention,
    MultiScale,
    SelectiveKernel,
    SplitAttention,
    SqueezeExcite,
)
from resnet_jax.models.attention_pool import AttentionPool
from resnet_jax.models.blocks import (
    BasicBlock,
    BottleneckBlock,
    NormalizerFreeBlock,
    PreActivationBasicBlock,
    PreActivationBottleneckBlock,
)
from resnet_jax.models.layers import (
    ScaledStandardizedConv,
    StandardizedConv,
    average_pool,
    blur_pool,
    blurred_max_pool,
    max_pool,
    zero_padded_max_pool,
)
from resnet_jax.models.normalization import (
    EvoNorm,
    FilterResponseNorm,
    GroupNorm,
    InstanceNorm,
    NoNorm,
)
from resnet_jax.models.options import Blocks
from resnet_jax.models.shortcuts import (
    AveragePoolShortcut,
    PadShortcut,
    PooledShortcut,
    SpatialShortcut,
)
from resnet_jax.models.stem import ConvPool
from resnet_jax.suggestions import did_you_mean, nearest

Fields = dict[str, Any]
"""Fields of a network, and options of its blocks and normalization layers, as overrides."""

# Number of blocks of each stage, by depth.
_18, _34, _101, _152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_50, _200, _269 = _34, (3, 24, 36, 3), (3, 30, 48, 8)
_ONE = (1, 1, 1, 1)

# Stems and shortcuts, by the letter that timm and GluonCV append to a name (He et al. 2018).
_C: Fields = {"stem_widths": (32, 32, 64), "stem_kernel_size": 3}
_S: Fields = {"stem_widths": (64, 64, 128), "stem_kernel_size": 3}
_D: Fields = _C | {"shortcut": AveragePoolShortcut}
_E: Fields = _S | {"shortcut": AveragePoolShortcut}
_T: Fields = _D | {"stem_widths": (24, 32, 64)}

_SE: Fields = {"attention": SqueezeExcite}
_SE_IBN: Fields = {"attention": partial(SqueezeExcite, use_bias=False)}
_ECA: Fields = {"attention": EfficientChannelAttention}
_RS: Fields = _D | {
    "attention": partial(SqueezeExcite, reduction=0.25),
    "stem_pool": ConvPool,
}
_AA: Fields = {"antialias": average_pool, "stem_pool": average_pool}
_BLUR: Fields = {"antialias": blur_pool, "stem_pool": blurred_max_pool}


def _x(cardinality: int, base_width: int) -> Fields:
    """ResNeXt (Xie et al. 2016): number of groups, and of channels per group in the first stage."""
    return {"cardinality": cardinality, "base_width": base_width}


def _sk(**kwargs: Any) -> Fields:
    return {"spatial_unit": partial(SelectiveKernel, **kwargs)}


def _split(
    radix: int = 2,
    cardinality: int = 1,
    base_width: int = 64,
    average_down: str = "after",
) -> Fields:
    """ResNeSt (Zhang et al. 2020): radix, number of groups, and of channels per group."""
    return _x(cardinality, base_width) | {
        "spatial_unit": partial(SplitAttention, radix=radix),
        "average_down": average_down,
    }


def _basic(sizes: tuple[int, ...], *fields: Fields) -> Fields:
    return _network(sizes, BasicBlock, *fields)


def _bottleneck(sizes: tuple[int, ...], *fields: Fields) -> Fields:
    return _network(sizes, BottleneckBlock, *fields)


def _preact_basic(sizes: tuple[int, ...], *fields: Fields) -> Fields:
    return _network(sizes, PreActivationBasicBlock, *fields)


def _preact(sizes: tuple[int, ...], *fields: Fields) -> Fields:
    return _network(sizes, PreActivationBottleneckBlock, *fields)


def _network(sizes: tuple[int, ...], block: Blocks, *fields: Fields) -> Fields:
    merged: Fields = {"stage_sizes": sizes, "block": block}
    for group in fields:
        merged |= group
    return merged


def _res2net(width: int, scale: int, cardinality: int = 1) -> Fields:
    """Res2Net (Gao et al. 2019): number of channels of each part, parts, and groups."""
    return _x(cardinality, width) | {"spatial_unit": partial(MultiScale, scale=scale)}


def _ibn_a(sizes: tuple[int, ...], block: type, *fields: Fields) -> Fields:
    """IBN-Net-a (Pan et al. 2018): instance normalization in every block of the first stages."""
    return _network(sizes, (*(partial(block, ibn="a"),) * 3, block), *fields)


def _ibn_b(sizes: tuple[int, ...], block: type) -> Fields:
    """IBN-Net-b: instance normalization after the stem and at the end of the first two stages."""
    ends = tuple((block,) * (size - 1) + (partial(block, ibn="b"),) for size in sizes[:2])
    return _network(sizes, (*ends, block, block), {"stem_norm": InstanceNorm})


def _pruned(*stages: tuple[pruned.Widths, ...]) -> Fields:
    """A pruned ECA-ResNet-D, by the numbers of channels of each block of each stage."""
    blocks = tuple(
        tuple(
            partial(
                BottleneckBlock,
                widths=widths,
                attention=partial(EfficientChannelAttention, channels=256 * 2**i),
            )
            for widths in stage
        )
        for i, stage in enumerate(stages)
    )
    return _network(tuple(map(len, stages)), blocks, _D)


def _bit(sizes: tuple[int, ...], factor: int) -> Fields:
    """Big Transfer (Kolesnikov et al. 2019): wide, with GroupNorm and standardized kernels."""
    return _preact(
        sizes,
        {
            "width": 64 * factor,
            "stem_pool": zero_padded_max_pool,
            "conv": StandardizedConv,
            "norm": GroupNorm,
        },
    )


def _nf(sizes: tuple[int, ...], *fields: Fields) -> Fields:
    """NF-ResNet (Brock et al. 2021): no normalization, and residual branches that start at zero."""
    return _network(
        sizes,
        NormalizerFreeBlock,
        {
            "shortcut": AveragePoolShortcut,
            "conv": ScaledStandardizedConv,
            "norm": NoNorm,
            "zero_init_residual": True,
        },
        *fields,
    )


def _clip(sizes: tuple[int, ...], width: int) -> Fields:
    """The ResNets of CLIP (Radford et al. 2021), which pool and have no head."""
    return _bottleneck(
        sizes,
        _AA,
        {
            "width": width,
            "stem_widths": (width // 2, width // 2, width),
            "stem_kernel_size": 3,
            "shortcut": PooledShortcut,
            "num_classes": 0,
        },
    )


def _embedding(size: int, grid: int) -> Fields:
    """The head of CLIP: attention over a grid of pixels, and the size of the embedding."""
    return {"num_classes": size, "global_pool": partial(AttentionPool, grid=grid)}


SMALL_INPUT: Fields = {"stem_kernel_size": 3, "stem_stride": 1, "stem_pool": None}
_CIFAR: Fields = SMALL_INPUT | {"num_classes": 10, "width": 16}
_A: Fields = {"shortcut": PadShortcut}
_V1: Fields = {"stride_in_1x1": True}


def _cifar(depth: int) -> Fields:
    """CIFAR networks (He et al. 2015, section 4.2): 6n + 2 layers in three stages of n blocks."""
    return _basic(((depth - 2) // 6,) * 3, _CIFAR, _A)


def _wide(depth: int, factor: int) -> Fields:
    """Wide ResNet (Zagoruyko and Komodakis 2016): 6n + 4 layers, ``factor`` times as wide."""
    return _preact_basic(
        ((depth - 4) // 6,) * 3, _CIFAR, {"width": 16 * factor, "stem_widths": (16,)}
    )


# ImageNet networks have the names that torchvision, timm and XingangPan/IBN-Net give to them, and
# are equal to them.
_VARIANTS: dict[str, Fields] = {
    "resnet10t": _basic(_ONE, _T),
    "resnet14t": _bottleneck(_ONE, _T),
    "resnet18": _basic(_18),
    "resnet18d": _basic(_18, _D),
    "resnet26": _bottleneck(_18),
    "resnet26d": _bottleneck(_18, _D),
    "resnet26t": _bottleneck(_18, _T),
    "resnet34": _basic(_34),
    "resnet34d": _basic(_34, _D),
    "resnet50": _bottleneck(_50),
    "resnet50c": _bottleneck(_50, _C),
    "resnet50d": _bottleneck(_50, _D),
    "resnet50s": _bottleneck(_50, _S),
    "resnet50t": _bottleneck(_50, _T),
    "resnet50_gn": _bottleneck(_50, {"norm": GroupNorm}),
    "resnet101": _bottleneck(_101),
    "resnet101c": _bottleneck(_101, _C),
    "resnet101d": _bottleneck(_101, _D),
    "resnet101s": _bottleneck(_101, _S),
    "resnet152": _bottleneck(_152),
    "resnet152c": _bottleneck(_152, _C),
    "resnet152d": _bottleneck(_152, _D),
    "resnet152s": _bottleneck(_152, _S),
    "resnet200": _bottleneck(_200),
    "resnet200d": _bottleneck(_200, _D),
    "resnext50_32x4d": _bottleneck(_50, _x(32, 4)),
    "resnext50d_32x4d": _bottleneck(_50, _x(32, 4), _D),
    "resnext101_32x4d": _bottleneck(_101, _x(32, 4)),
    "resnext101_32x8d": _bottleneck(_101, _x(32, 8)),
    "resnext101_32x16d": _bottleneck(_101, _x(32, 16)),
    "resnext101_32x32d": _bottleneck(_101, _x(32, 32)),
    "resnext101_64x4d": _bottleneck(_101, _x(64, 4)),
    "wide_resnet50_2": _bottleneck(_50, _x(1, 128)),
    "wide_resnet101_2": _bottleneck(_101, _x(1, 128)),
    "seresnet18": _basic(_18, _SE),
    "seresnet34": _basic(_34, _SE),
    "seresnet50": _bottleneck(_50, _SE),
    "seresnet50t": _bottleneck(_50, _SE, _T),
    "seresnet101": _bottleneck(_101, _SE),
    "seresnet152": _bottleneck(_152, _SE),
    "seresnet152d": _bottleneck(_152, _SE, _D),
    "seresnet200d": _bottleneck(_200, _SE, _D),
    "seresnet269d": _bottleneck(_269, _SE, _D),
    "seresnext26d_32x4d": _bottleneck(_18, _SE, _x(32, 4), _D),
    "seresnext26t_32x4d": _bottleneck(_18, _SE, _x(32, 4), _T),
    "seresnext50_32x4d": _bottleneck(_50, _SE, _x(32, 4)),
    "seresnext101_32x4d": _bottleneck(_101, _SE, _x(32, 4)),
    "seresnext101_32x8d": _bottleneck(_101, _SE, _x(32, 8)),
    "seresnext101d_32x8d": _bottleneck(_101, _SE, _x(32, 8), _D),
    "seresnext101_64x4d": _bottleneck(_101, _SE, _x(64, 4)),
    "seresnetaa50d": _bottleneck(_50, _SE, _AA, _D),
    "seresnextaa101d_32x8d": _bottleneck(_101, _SE, _AA, _x(32, 8), _D),
    "seresnextaa201d_32x8d": _bottleneck((3, 24, 36, 4), _SE, _AA, _x(32, 8), _E),
    "senet154": _bottleneck(
        _152, _SE, _x(64, 4), _S, {"reduce_first": 2, "shortcut": SpatialShortcut}
    ),
    "ecaresnet26t": _bottleneck(_18, _ECA, _T),
    "ecaresnet50d": _bottleneck(_50, _ECA, _D),
    "ecaresnet50t": _bottleneck(_50, _ECA, _T),
    "ecaresnet101d": _bottleneck(_101, _ECA, _D),
    "ecaresnet200d": _bottleneck(_200, _ECA, _D),
    "ecaresnet269d": _bottleneck(_269, _ECA, _D),
    "ecaresnet50d_pruned": _pruned(*pruned.ECARESNET50D),
    "ecaresnet101d_pruned": _pruned(*pruned.ECARESNET101D),
    "ecaresnext26t_32x4d": _bottleneck(_18, _ECA, _x(32, 4), _T),
    "ecaresnext50t_32x4d": _bottleneck(_50, _ECA, _x(32, 4), _T),
    "ecaresnetlight": _bottleneck((1, 1, 11, 3), _ECA, {"shortcut": AveragePoolShortcut}),
    "skresnet18": _basic(_18, _sk(reduction=1 / 8, divisor=16)),
    "skresnet34": _basic(_34, _sk(reduction=1 / 8, divisor=16)),
    "skresnet50": _bottleneck(_50, _sk()),
    "skresnet50d": _bottleneck(_50, _sk(), _D),
    "skresnext50_32x4d": _bottleneck(_50, _sk(divisor=32, split_input=False), _x(32, 4)),
    "resnetaa34d": _basic(_34, _AA, _D),
    "resnetaa50": _bottleneck(_50, _AA),
    "resnetaa50d": _bottleneck(_50, _AA, _D),
    "resnetaa101d": _bottleneck(_101, _AA, _D),
    "resnetblur18": _basic(_18, _BLUR),
    "resnetblur50": _bottleneck(_50, _BLUR),
    "resnetblur50d": _bottleneck(_50, _BLUR, _D),
    "resnetblur101d": _bottleneck(_101, _BLUR, _D),
    "resnest14d": _bottleneck(_ONE, _split(), _D),
    "resnest26d": _bottleneck(_18, _split(), _D),
    "resnest50d": _bottleneck(_50, _split(), _D),
    "resnest50d_1s4x24d": _bottleneck(_50, _split(1, 4, 24, "before"), _D),
    "resnest50d_4s2x40d": _bottleneck(_50, _split(4, 2, 40, "before"), _D),
    "resnest101e": _bottleneck(_101, _split(), _E),
    "resnest200e": _bottleneck(_200, _split(), _E),
    "resnest269e": _bottleneck(_269, _split(), _E),
    "resnetrs50": _bottleneck(_50, _RS),
    "resnetrs101": _bottleneck(_101, _RS),
    "resnetrs152": _bottleneck(_152, _RS),
    "resnetrs200": _bottleneck(_200, _RS),
    "resnetrs270": _bottleneck((4, 29, 53, 4), _RS),
    "resnetrs350": _bottleneck((4, 36, 72, 4), _RS),
    "resnetrs420": _bottleneck((4, 44, 87, 4), _RS),
    "res2net50_14w_8s": _bottleneck(_50, _res2net(14, 8)),
    "res2net50_26w_4s": _bottleneck(_50, _res2net(26, 4)),
    "res2net50_26w_6s": _bottleneck(_50, _res2net(26, 6)),
    "res2net50_26w_8s": _bottleneck(_50, _res2net(26, 8)),
    "res2net50_48w_2s": _bottleneck(_50, _res2net(48, 2)),
    "res2net50d": _bottleneck(_50, _res2net(26, 4), _D),
    "res2net101_26w_4s": _bottleneck(_101, _res2net(26, 4)),
    "res2net101d": _bottleneck(_101, _res2net(26, 4), _D),
    "res2next50": _bottleneck(_50, _res2net(4, 4, cardinality=8)),
    "resnet18_ibn_a": _ibn_a(_18, BasicBlock),
    "resnet34_ibn_a": _ibn_a(_34, BasicBlock),
    "resnet50_ibn_a": _ibn_a(_50, BottleneckBlock),
    "resnet101_ibn_a": _ibn_a(_101, BottleneckBlock),
    "resnet152_ibn_a": _ibn_a(_152, BottleneckBlock),
    "resnext50_ibn_a": _ibn_a(_50, BottleneckBlock, _x(32, 4)),
    "resnext101_ibn_a": _ibn_a(_101, BottleneckBlock, _x(32, 4)),
    "resnext152_ibn_a": _ibn_a(_152, BottleneckBlock, _x(32, 4)),
    "se_resnet50_ibn_a": _ibn_a(_50, BottleneckBlock, _SE_IBN),
    "se_resnet101_ibn_a": _ibn_a(_101, BottleneckBlock, _SE_IBN),
    "se_resnet152_ibn_a": _ibn_a(_152, BottleneckBlock, _SE_IBN),
    "resnet18_ibn_b": _ibn_b(_18, BasicBlock),
    "resnet34_ibn_b": _ibn_b(_34, BasicBlock),
    "resnet50_ibn_b": _ibn_b(_50, BottleneckBlock),
    "resnet101_ibn_b": _ibn_b(_101, BottleneckBlock),
    "resnet152_ibn_b": _ibn_b(_152, BottleneckBlock),
    "resnetv2_18": _preact_basic(_18),
    "resnetv2_18d": _preact_basic(_18, _D),
    "resnetv2_34": _preact_basic(_34),
    "resnetv2_34d": _preact_basic(_34, _D),
    "resnetv2_50": _preact(_50),
    "resnetv2_50d": _preact(_50, _D),
    "resnetv2_50t": _preact(_50, _T),
    "resnetv2_50d_gn": _preact(_50, _D, {"norm": GroupNorm}),
    "resnetv2_50d_evos": _preact(_50, _D, {"norm": EvoNorm}),
    "resnetv2_50d_frn": _preact(_50, _D, {"norm": FilterResponseNorm}),
    "resnetv2_101": _preact(_101),
    "resnetv2_101d": _preact(_101, _D),
    "resnetv2_152": _preact(_152),
    "resnetv2_152d": _preact(_152, _D),
    "resnetv2_50x1_bit": _bit(_50, 1),
    "resnetv2_50x3_bit": _bit(_50, 3),
    "resnetv2_101x1_bit": _bit(_101, 1),
    "resnetv2_101x3_bit": _bit(_101, 3),
    "resnetv2_152x2_bit": _bit(_152, 2),
    "resnetv2_152x4_bit": _bit(_152, 4),
    "resnet50_clip": _clip(_50, 64) | _embedding(1024, 7),
    "resnet50_clip_gap": _clip(_50, 64),
    "resnet50x4_clip": _clip((4, 6, 10, 6), 80) | _embedding(640, 9),
    "resnet50x4_clip_gap": _clip((4, 6, 10, 6), 80),
    "resnet50x16_clip": _clip((6, 8, 18, 8), 96) | _embedding(768, 12),
    "resnet50x16_clip_gap": _clip((6, 8, 18, 8), 96),
    "resnet50x64_clip": _clip((3, 15, 36, 10), 128) | _embedding(1024, 14),
    "resnet50x64_clip_gap": _clip((3, 15, 36, 10), 128),
    "resnet101_clip": _clip(_101, 64) | _embedding(512, 7),
    "resnet101_clip_gap": _clip(_101, 64),
    "nf_resnet26": _nf(_18),
    "nf_resnet50": _nf(_50),
    "nf_resnet101": _nf(_101),
    "nf_seresnet26": _nf(_18, _SE),
    "nf_seresnet50": _nf(_50, _SE),
    "nf_seresnet101": _nf(_101, _SE),
    "nf_ecaresnet26": _nf(_18, _ECA),
    "nf_ecaresnet50": _nf(_50, _ECA),
    "nf_ecaresnet101": _nf(_101, _ECA),
    # The network of timm's own tests: every stage has its own kind of block and width.
    "test_resnet": _network(
        _ONE,
        (BasicBlock, BasicBlock, BottleneckBlock, BasicBlock),
        _D,
        {"stem_widths": (16, 16, 32), "width": (32, 48, 48, 96)},
    ),
    "cifar_resnet20": _cifar(20),
    "cifar_resnet32": _cifar(32),
    "cifar_resnet44": _cifar(44),
    "cifar_resnet56": _cifar(56),
    "cifar_resnet110": _cifar(110),
    "cifar_resnet1202": _cifar(1202),
    # Option B of the paper: projections instead of zeros where the number of channels changes.
    "cifar_resnet20_b": _basic((3, 3, 3), _CIFAR),
    "cifar_resnet32_b": _basic((5, 5, 5), _CIFAR),
    # Few large convolutions, with max-pooling after the stem, which suit CPUs.
    "cifar_resnet8_w64": _basic((1, 1, 1), _CIFAR, {"width": 64, "stem_pool": max_pool}),
    # He et al. 2016, table 2: 6n + 2 layers with basic blocks, and 9n + 2 with bottlenecks, whose
    # stride is in the first convolution (KaimingHe/resnet-1k-layers).
    "cifar_preresnet110": _preact_basic((18, 18, 18), _CIFAR, _A),
    "cifar_preresnet164": _preact((18, 18, 18), _CIFAR, _V1),
    "cifar_preresnet1001": _preact((111, 111, 111), _CIFAR, _V1),
    "wrn_16_8": _wide(16, 8),
    "wrn_28_10": _wide(28, 10),
    "wrn_40_4": _wide(40, 4),
}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that `create_model` accepts and that match a pattern.

    Args:
        pattern: a shell pattern such as ``"resnet*d"``.

    Returns:
        The names grouped by kind of network, and sorted by depth within a group.

    >>> list_models("resnet1?")
    ['resnet18']
    """
    return [name for name in _VARIANTS if fnmatch.fnmatchcase(name, pattern)]


def fields_of(name: str) -> Fields:
    """Return the fields and options of a network by its name.

    Raises:
        ValueError: the name is unknown; the message suggests the most similar names.
    """
    if name not in _VARIANTS:
        untagged, _, tag = name.partition(".")
        if tag and untagged in _VARIANTS:
            raise ValueError(
                f"unknown model {name!r}: the network is {untagged!r}, and its weights are "
                f"load_weights(model, 'hf://timm/{name}')"
            )
        hint = did_you_mean(nearest(name, _VARIANTS), otherwise="see list_models().")
        raise ValueError(f"unknown model {name!r}: {hint}")
    return dict(_VARIANTS[name])
