"""Translation of the names of ``transformers`` into torchvision's and timm's, and back for ResNets.

The layouts are the same.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from resnet_jax.weights.dialects.renaming import Rules, renamed

_LEAF = r"(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)"
# Wrappers put a prefix before every name, and the variants with a head put another before all but
# the head.
_PREFIX = r"(?P<prefix>(?:.*?\.)??)"
_MODEL = _PREFIX + r"(?:resnet\.|bit\.)?"
_BLOCK = _MODEL + r"encoder\.stages\.(?P<stage>\d+)\.layers\.(?P<block>\d+)\."

_RULES: Rules = (
    (_MODEL + r"embedder\.embedder\.convolution\." + _LEAF, "{prefix}conv1.{leaf}"),
    (_MODEL + r"embedder\.embedder\.normalization\." + _LEAF, "{prefix}bn1.{leaf}"),
    (
        _BLOCK + r"layer\.(?P<n>\d)\.convolution\." + _LEAF,
        "{prefix}layer{stage1}.{block}.conv{n1}.{leaf}",
    ),
    (
        _BLOCK + r"layer\.(?P<n>\d)\.normalization\." + _LEAF,
        "{prefix}layer{stage1}.{block}.bn{n1}.{leaf}",
    ),
    (
        _BLOCK + r"shortcut\.convolution\." + _LEAF,
        "{prefix}layer{stage1}.{block}.downsample.0.{leaf}",
    ),
    (
        _BLOCK + r"shortcut\.normalization\." + _LEAF,
        "{prefix}layer{stage1}.{block}.downsample.1.{leaf}",
    ),
    (_MODEL + r"embedder\.convolution\." + _LEAF, "{prefix}stem.conv.{leaf}"),
    (
        _BLOCK + r"(?P<layer>(conv|norm)\d|downsample\.conv)\." + _LEAF,
        "{prefix}stages.{stage}.blocks.{block}.{layer}.{leaf}",
    ),
    (_MODEL + r"norm\." + _LEAF, "{prefix}norm.{leaf}"),
)
_RESNET_HEAD: Rules = ((_PREFIX + r"classifier\.1\." + _LEAF, "{prefix}fc.{leaf}"),)
_BIT_HEAD: Rules = ((_PREFIX + r"classifier\.1\." + _LEAF, "{prefix}head.fc.{leaf}"),)


def is_transformers(names: Iterable[str]) -> bool:
    """Return whether tensors with these names are a network of ``transformers``."""
    return any("encoder.stages." in name for name in names)


def from_transformers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a state dict of ``transformers`` to the names of torchvision (ResNet) or timm (BiT).

    A prefix of all names stays.  A tensor that belongs to neither network keeps its name.
    """
    rules = _RULES + (_BIT_HEAD if any(".norm1." in name for name in tensors) else _RESNET_HEAD)
    return {renamed(name, rules) or name: array for name, array in tensors.items()}


_TORCH_BLOCK = r"layer(?P<stage>\d)\.(?P<block>\d+)\."
_INVERSE: Rules = (
    (r"conv1\." + _LEAF, "resnet.embedder.embedder.convolution.{leaf}"),
    (r"bn1\." + _LEAF, "resnet.embedder.embedder.normalization.{leaf}"),
    *(
        (
            _TORCH_BLOCK + rf"{theirs}(?P<n>\d)\." + _LEAF,
            f"resnet.encoder.stages.{{stage0}}.layers.{{block}}.layer.{{n0}}.{part}.{{leaf}}",
        )
        for theirs, part in (("conv", "convolution"), ("bn", "normalization"))
    ),
    *(
        (
            _TORCH_BLOCK + rf"downsample\.{index}\." + _LEAF,
            f"resnet.encoder.stages.{{stage0}}.layers.{{block}}.shortcut.{part}.{{leaf}}",
        )
        for index, part in ((0, "convolution"), (1, "normalization"))
    ),
    (r"fc\." + _LEAF, "classifier.1.{leaf}"),
)


def to_transformers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a state dict of torchvision's ResNets to the names of ``transformers``.

    Raises:
        ValueError: ``ResNetForImageClassification`` has no such tensor.
    """
    result = {}
    for name, array in tensors.items():
        theirs = renamed(name, _INVERSE)
        if theirs is None:
            raise ValueError(f"ResNetForImageClassification of transformers has no {name}")
        result[theirs] = array
        if theirs.endswith("running_var"):
            # A counter, without which `from_pretrained` warns of missing weights.
            counter = theirs.removesuffix("running_var") + "num_batches_tracked"
            result[counter] = np.zeros((), np.int64)
    return result
