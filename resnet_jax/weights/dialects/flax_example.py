"""Checkpoints of Flax's ImageNet example (https://github.com/google/flax, examples/imagenet)."""

import bisect
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

_MODULES = {
    "conv_init": ("stem", "conv"),
    "bn_init": ("stem", "norm"),
    "Dense_0": ("head",),
}
_BLOCK = re.compile(r"(Bottleneck)?ResNetBlock_(?P<index>\d+)")
_LAYERS = {
    **{f"Conv_{i}": (f"conv{i + 1}",) for i in range(3)},
    **{f"BatchNorm_{i}": (f"norm{i + 1}",) for i in range(3)},
    "conv_proj": ("shortcut", "conv"),
    "norm_proj": ("shortcut", "norm"),
}


def is_flax_example(variables: Mapping[str, Any]) -> bool:
    """Whether these variables are of a network of the example."""
    return "conv_init" in variables["params"]


def from_flax_example(variables: Mapping[str, Any], stage_sizes: Sequence[int]) -> dict[str, Any]:
    """Renames its modules into ours; layouts are the same.

    It numbers the blocks through the whole network, so that names alone do not tell the stages.
    Blocks that the stages do not have, and modules that the example does not, keep their names.

    Args:
        variables: ``params`` and ``batch_stats``.
        stage_sizes: number of blocks of each stage.
    """
    return {
        collection: _renamed(modules, list(itertools.accumulate(stage_sizes)))
        for collection, modules in variables.items()
    }


def _renamed(modules: Mapping[str, Any], ends: list[int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, content in modules.items():
        match = _BLOCK.fullmatch(name)
        index = int(match["index"]) if match else ends[-1]
        if index < ends[-1]:
            stage = bisect.bisect_right(ends, index)
            block = index - (ends[stage - 1] if stage else 0)
            for layer, leaves in content.items():
                path = (f"stage{stage + 1}", f"block{block + 1}", *_LAYERS.get(layer, (layer,)))
                _insert(result, path, leaves)
        else:
            _insert(result, _MODULES.get(name, (name,)), content)
    return result


def _insert(tree: dict[str, Any], path: Sequence[str], leaves: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaves
