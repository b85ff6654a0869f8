"""Names and layouts of torchvision's ResNets beside ours.

Ours is a path such as ``params/stage1/block1/shortcut/conv/kernel``, theirs a name such as
``layer1.0.downsample.0.weight``.
"""

import re
from collections.abc import Sequence

import numpy as np

_MODULES: tuple[tuple[str, str], ...] = (
    (r"stem/conv", "conv1"),
    (r"stem/norm", "bn1"),
    (r"stage(\d+)/block(\d+)/conv(\d+)", "layer{0}.{1}.conv{2}"),
    (r"stage(\d+)/block(\d+)/norm(\d+)", "layer{0}.{1}.bn{2}"),
    (r"stage(\d+)/block(\d+)/shortcut/conv", "layer{0}.{1}.downsample.0"),
    (r"stage(\d+)/block(\d+)/shortcut/norm", "layer{0}.{1}.downsample.1"),
    (r"head", "fc"),
)

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_name(path: Sequence[str]) -> str:
    """The torchvision name of one of our variables.

    >>> torch_name(["batch_stats", "stage1", "block2", "norm1", "mean"])
    'layer1.1.bn1.running_mean'

    Args:
        path: collection, modules and leaf name.

    Raises:
        KeyError: torchvision has no such variable.
    """
    _, *modules, leaf = path
    ours = "/".join(modules)
    for pattern, theirs in _MODULES:
        if match := re.fullmatch(pattern, ours):
            stage, block, *rest = (*match.groups(), None, None)
            # PyTorch counts blocks from 0, everything else from 1.
            numbers = [stage, None if block is None else int(block) - 1, *rest]
            return f"{theirs.format(*numbers)}.{_LEAVES[leaf]}"
    raise KeyError(f"torchvision has no variable {'/'.join(path)}")


def from_torch_layout(array: np.ndarray) -> np.ndarray:
    """OIHW to HWIO for convolutions, [out, in] to [in, out] for dense layers, else unchanged."""
    match array.ndim:
        case 4:
            return array.transpose(2, 3, 1, 0)
        case 2:
            return array.transpose()
        case _:
            return array
