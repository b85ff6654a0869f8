"""Translation of checkpoints of Flax's ImageNet example.

Its source is https://github.com/google/flax, examples/imagenet.
"""

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
    """Return whether these variables belong to a network of the example."""
    return "conv_init" in variables["params"]


def from_flax_example(variables: Mapping[str, Any], stage_sizes: Sequence[int]) -> dict[str, Any]:
    """Rename the modules of the example to ours; the layouts are the same.

    The example numbers its blocks through the whole network, so the stage of a block follows from
    the sizes of the stages.

    Args:
        variables: ``params`` and ``batch_stats``.
        stage_sizes: Number of blocks in each stage.

    Returns:
        The same arrays under our names.  Blocks beyond the last stage, and modules that the example
        does not have, keep their names.
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
