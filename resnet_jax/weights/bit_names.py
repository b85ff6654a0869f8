"""Names and layouts of Google's BiT files (Kolesnikov et al. 2019) beside timm's.

Theirs are names such as ``resnet/block1/unit01/a/standardized_conv2d/kernel`` and kernels
[H, W, I, O]; the files are those of https://github.com/google-research/big_transfer.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

_STEM = "resnet/root_block/standardized_conv2d/kernel"
_UNIT = r"resnet/block(?P<stage>\d+)/unit(?P<block>\d+)/"
_LAYER = _UNIT + r"(?P<layer>[abc])/"

_RULES = (
    (_STEM, "stem.conv.weight"),
    (_LAYER + "standardized_conv2d/kernel", "stages.{stage}.blocks.{block}.conv{layer}.weight"),
    (_LAYER + "group_norm/gamma", "stages.{stage}.blocks.{block}.norm{layer}.weight"),
    (_LAYER + "group_norm/beta", "stages.{stage}.blocks.{block}.norm{layer}.bias"),
    (
        _UNIT + "a/proj/standardized_conv2d/kernel",
        "stages.{stage}.blocks.{block}.downsample.conv.weight",
    ),
    ("resnet/group_norm/gamma", "norm.weight"),
    ("resnet/group_norm/beta", "norm.bias"),
    ("resnet/head/conv2d/kernel", "head.fc.weight"),
    ("resnet/head/conv2d/bias", "head.fc.bias"),
)


def is_bit(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a BiT network."""
    return _STEM in names


def from_bit(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames and transposes the tensors of a BiT file into a state dict of timm.

    Args:
        tensors: as in the file; kernels [H, W, I, O], everything else [C].

    Returns:
        timm's names to arrays; kernels [O, I, H, W].

    Raises:
        ValueError: a tensor is none of a BiT network; the message names it.
    """
    return {
        _timm_name(name): array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        for name, array in tensors.items()
    }


def _timm_name(name: str) -> str:
    for pattern, theirs in _RULES:
        if match := re.fullmatch(pattern, name):
            fields: dict[str, str | int] = {
                k: " abc".index(v) if k == "layer" else int(v) - 1
                for k, v in match.groupdict().items()
            }
            return theirs.format(**fields)
    raise ValueError(f"BiT networks have no tensor {name}")
