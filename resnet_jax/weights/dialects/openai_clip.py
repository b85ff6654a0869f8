"""Translation of the image networks in files of CLIP into timm's names; the layouts are the same.

OpenAI (https://github.com/openai/CLIP) and OpenCLIP use the same names.  They look like
``visual.layer1.0.conv1.weight``, beside those of the text network.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from resnet_jax.weights.dialects.renaming import Rules, renamed

_POSITIONS = "attnpool.positional_embedding"
_LEAF = r"(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = r"layer(?P<stage>\d+)\.(?P<block>\d+)\."
_THEIRS = "stages.{stage0}.{block}."

_RULES: Rules = (
    (r"conv(?P<n>\d)\." + _LEAF, "stem.conv{n}.conv.{leaf}"),
    (r"bn(?P<n>\d)\." + _LEAF, "stem.conv{n}.bn.{leaf}"),
    *(
        (f"{_BLOCK}{layer}{n}\\.{_LEAF}", f"{_THEIRS}conv{n}_{kind}.{layer}.{{leaf}}")
        for n, kind in ((1, "1x1"), (2, "kxk"), (3, "1x1"))
        for layer in ("conv", "bn")
    ),
    (_BLOCK + r"downsample\.0\." + _LEAF, _THEIRS + "shortcut.conv.conv.{leaf}"),
    (_BLOCK + r"downsample\.1\." + _LEAF, _THEIRS + "shortcut.conv.bn.{leaf}"),
    (r"attnpool\.positional_embedding", "head.pos_embed"),
    (r"attnpool\.(?P<layer>[qkv])_proj\." + _LEAF, "head.{layer}.{leaf}"),
    (r"attnpool\.c_proj\." + _LEAF, "head.proj.{leaf}"),
)


def is_openai_clip(names: Iterable[str]) -> bool:
    """Return whether tensors with these names contain a ResNet of CLIP."""
    return bool(_prefixes(names))


def from_openai_clip(
    tensors: Mapping[str, np.ndarray], *, attention: bool
) -> dict[str, np.ndarray]:
    """Rename the image networks to those of timm.

    Args:
        tensors: The names in the file, mapped to arrays.
        attention: Whether the network pools by attention.  Otherwise that layer is left out.

    Returns:
        The names of timm after the prefix that they had, such as ``visual.``, mapped to the same
        arrays.  All other tensors, such as those of the text network, keep their names.
    """
    prefixes = _prefixes(tensors)
    result = {}
    for name, array in tensors.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        bare = None if prefix is None else name.removeprefix(prefix)
        if bare is None:
            result[name] = array
        elif attention or not bare.startswith("attnpool."):
            result[f"{prefix}{renamed(bare, _RULES) or bare}"] = array
    return result


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return what precedes the names of each image network, the longest first."""
    before = {name.removesuffix(_POSITIONS) for name in names if name.endswith(_POSITIONS)}
    return sorted((p for p in before if not p or p.endswith(".")), key=len, reverse=True)
