"""Translation of Google's BiT files (Kolesnikov et al. 2019) into timm's names and layouts.

The files are published at https://github.com/google-research/big_transfer.  Their names look like
``resnet/block1/unit01/a/standardized_conv2d/kernel``, and their kernels are [H, W, I, O].
"""

from collections.abc import Iterable, Mapping

import numpy as np

from resnet_jax.weights.dialects.renaming import Rules, renamed

_STEM = "resnet/root_block/standardized_conv2d/kernel"
_PREFIX = r"(?P<prefix>(?:.*\.)?)"  # Of dictionaries around the tensors.
_UNIT = _PREFIX + r"resnet/block(?P<stage>\d+)/unit(?P<block>\d+)/"
_BLOCK = "{prefix}stages.{stage0}.blocks.{block0}."

_RULES: Rules = (
    (_PREFIX + _STEM, "{prefix}stem.conv.weight"),
    *(
        (_UNIT + layer + suffix, _BLOCK + theirs)
        for layer, n in (("a", 1), ("b", 2), ("c", 3))
        for suffix, theirs in (
            ("/standardized_conv2d/kernel", f"conv{n}.weight"),
            ("/group_norm/gamma", f"norm{n}.weight"),
            ("/group_norm/beta", f"norm{n}.bias"),
        )
    ),
    (_UNIT + "a/proj/standardized_conv2d/kernel", _BLOCK + "downsample.conv.weight"),
    (_PREFIX + "resnet/group_norm/gamma", "{prefix}norm.weight"),
    (_PREFIX + "resnet/group_norm/beta", "{prefix}norm.bias"),
    (_PREFIX + "resnet/head/conv2d/kernel", "{prefix}head.fc.weight"),
    (_PREFIX + "resnet/head/conv2d/bias", "{prefix}head.fc.bias"),
)


def is_bit(names: Iterable[str]) -> bool:
    """Return whether tensors with these names are a BiT network."""
    return any(name.endswith(_STEM) for name in names)


def from_bit(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename and transpose the tensors of a BiT file into a state dict of timm.

    Args:
        tensors: The names in the file, mapped to arrays: kernels [H, W, I, O], all others [C].

    Returns:
        timm's names, mapped to arrays, with kernels [O, I, H, W].  A tensor that does not belong to
        a BiT network keeps its name.
    """
    return {
        renamed(name, _RULES) or name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        for name, array in tensors.items()
    }
