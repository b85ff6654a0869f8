"""The kinds of parts in the table of networks, and small networks that have all of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from resnet_jax import BasicBlock, ResNet
from resnet_jax.models.options import distinct_blocks, unbound_block, unbound_norm

# Each network is as small as its name allows. Together they have every kind of part in the table.
_ONE: dict[str, Any] = {"width": 8, "stage_sizes": (1,)}
_TWO: dict[str, Any] = {"width": 8, "stage_sizes": (1, 1)}
REPRESENTATIVES: list[tuple[str, dict[str, Any]]] = [
    ("resnet18", _TWO),
    ("resnet50d", _TWO),
    ("resnext50_32x4d", _ONE | {"width": 16}),
    ("senet154", _TWO | {"width": 32, "cardinality": 16}),
    ("ecaresnet50t", _ONE),
    ("skresnet18", _ONE | {"width": 16}),
    ("resnest50d_4s2x40d", _TWO | {"width": 32}),
    ("resnest14d", _ONE | {"width": 16}),
    ("res2net50_26w_4s", {"width": 32, "stage_sizes": (2,)}),
    ("resnetblur18", _TWO),
    ("seresnetaa50d", _TWO),
    ("resnetrs50", _ONE),
    ("resnet18_ibn_a", _ONE | {"block": partial(BasicBlock, ibn="a")}),
    ("resnet18_ibn_b", _ONE | {"block": partial(BasicBlock, ibn="b")}),
    ("resnet50_gn", _ONE | {"width": 32}),
    ("resnetv2_50x1_bit", _ONE | {"width": 32}),
    ("resnetv2_50d_evos", _ONE | {"width": 32}),
    ("resnetv2_50d_frn", _ONE),
    ("resnet50_clip", _ONE | {"width": 16, "stem_widths": (8, 8, 16)}),
    ("nf_seresnet26", _ONE),
    ("cifar_preresnet164", _TWO),
    ("cifar_preresnet110", _TWO),
]


def kinds_of(model: ResNet) -> set[str]:
    """Return what the network is made of: blocks, stems, attention, pooling, normalization."""
    stem = len(model.stem_widths or (0,))
    kinds = {
        f"stem of {stem} {model.stem_kernel_size}x{model.stem_kernel_size} convolutions",
        f"stem pooling {_name(model.stem_pool)}",
        f"shortcut {_name(model.shortcut)}",
        f"convolution {_name(model.conv)}",
        f"normalization {_name(unbound_norm(model.norm))}",
        f"global pooling {_name(model.global_pool)}",
        f"activation {_name(model.act)}",
    }
    if model.stem_norm is not None:
        kinds.add(f"stem normalization {_name(unbound_norm(model.stem_norm))}")
    for builder in distinct_blocks(model.block):
        block = unbound_block(builder)
        kinds.add(f"block {_name(block)}")
        for option in ("attention", "spatial_unit", "antialias", "average_down", "ibn"):
            value = getattr(block, option, None)
            if value is not None:
                kinds.add(f"{option} {_name(value)}")
        for option, usual in (("cardinality", 1), ("reduce_first", 1), ("stride_in_1x1", False)):
            if getattr(block, option, usual) != usual:
                kinds.add(option)
    return kinds


def _name(part: Callable[..., Any] | str | object) -> str:
    """Return the name of a part: a string, a function, a class, an instance or a partial."""
    part = getattr(part, "func", part)
    if isinstance(part, str) or part is None:
        return str(part)
    return getattr(part, "__name__", type(part).__name__)
