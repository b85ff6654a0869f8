"""Translation of the image networks in files of CLIP into timm's names; the layouts are the same.

OpenAI (https://github.com/openai/CLIP) and OpenCLIP use the same names.  They look like
``visual.layer1.0.conv1.weight``, beside those of the text network.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from resnet_jax.weights.dialects.renaming import Rules, renamed

_PREFIX = "visual."
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
    return any(name.removeprefix(_PREFIX) == "attnpool.positional_embedding" for name in names)


def from_openai_clip(
    tensors: Mapping[str, np.ndarray], *, attention: bool
) -> dict[str, np.ndarray]:
    """Return the state dict of timm's network for the images, without the text network.

    Args:
        tensors: The names in the file, or those of the image network alone, mapped to arrays.
        attention: Whether the network pools by attention.  Otherwise that layer is left out.
    """
    whole = any(name.startswith(_PREFIX) for name in tensors)
    result = {}
    for name, array in tensors.items():
        bare = name.removeprefix(_PREFIX)
        if (whole and bare == name) or (bare.startswith("attnpool.") and not attention):
            continue
        result[renamed(bare, _RULES) or name] = array
    return result
