"""The two layouts of the variables of identical blocks: separate, or stacked for ``scan``.

With ``scan=False``, a stage has ``block1``, ``block2`` and so on.  With ``scan=True``, a stage that
is long enough for a loop, and whose blocks after the first are equal, has ``block1``, and
``blocks`` for all blocks after it.  The arrays of ``blocks`` have a leading axis over these blocks.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_BLOCK = re.compile(r"block(\d+)")
_STACK = "blocks"
# Smallest number of blocks in a stage with a loop.  XLA compiles equal kernels of several blocks
# once, and a loop adds kernels of its own, so that a shorter stage compiles faster without one.
_FEWEST = 5


def loop_length(size: int) -> int:
    """Return the number of blocks that ``scan`` runs as a loop in a stage of ``size`` blocks.

    They are the last blocks of the stage.  0 means that there is no loop.
    """
    return size - 1 if size >= _FEWEST else 0


def stack_blocks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a network in the layout of the same network with ``scan=True``.

    Args:
        variables: collections such as ``params`` and ``batch_stats`` of a network of this library.
            Stages that are stacked already are returned unchanged.

    Returns:
        The same values, bit for bit.

    Raises:
        ValueError: ``variables`` is a single collection without its name.
    """
    _check_collections(variables)
    # Blocks that differ in their parameters may have the same statistics.
    separate = {
        name
        for tree in variables.values()
        for name, blocks in tree.items()
        if name.startswith("stage") and not _are_alike(blocks)
    }
    return _of_stages(
        lambda name, blocks: blocks if name in separate else _stack(blocks), variables
    )


def unstack_blocks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables in the layout of the same network with ``scan=False``.

    This is the inverse of `stack_blocks`, with the same arguments and errors.
    """
    _check_collections(variables)
    return _of_stages(lambda _, blocks: _unstack(blocks), variables)


def unstacked_paths(path: Sequence[str], shape: Sequence[int]) -> list[str]:
    """Return the paths of the variables into which `unstack_blocks` splits a variable.

    Args:
        path: names of the modules and of the variable, without the collection.
        shape: shape of the variable.

    >>> unstacked_paths(("stage1", "blocks", "norm1", "scale"), (2, 64))
    ['stage1/block2/norm1/scale', 'stage1/block3/norm1/scale']
    >>> unstacked_paths(("stem", "conv", "kernel"), (7, 7, 3, 64))
    ['stem/conv/kernel']
    """
    if not is_stacked(path):
        return ["/".join(path)]
    stage, _, *layers = path
    return ["/".join((stage, f"block{i + 2}", *layers)) for i in range(shape[0])]


def is_stacked(path: Sequence[str]) -> bool:
    """Return whether a variable has a leading axis over blocks.

    Args:
        path: names of the modules and of the variable, without the collection.

    >>> is_stacked(("stage1", "blocks", "norm1", "scale"))
    True
    """
    return len(path) > 1 and path[1] == _STACK


def _check_collections(variables: Mapping[str, Any]) -> None:
    if "stage1" in variables:
        raise ValueError(
            'these are the variables of one collection; give {"params": variables} instead'
        )


def _of_stages(
    change: Callable[[str, Mapping[str, Any]], Mapping[str, Any]], variables: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        collection: {
            name: dict(change(name, blocks)) if name.startswith("stage") else blocks
            for name, blocks in tree.items()
        }
        for collection, tree in variables.items()
    }


def _are_alike(blocks: Mapping[str, Any]) -> bool:
    """Return whether all blocks after the first have variables of the same names and shapes."""
    _, *others = [jax.tree.map(jnp.shape, blocks[name]) for name in _numbered(blocks)]
    return all(other == others[0] for other in others)


def _numbered(blocks: Mapping[str, Any]) -> list[str]:
    """Return the names of the separate blocks in their order."""
    return sorted(filter(_BLOCK.fullmatch, blocks), key=lambda name: int(name[len("block") :]))


def _stack(blocks: Mapping[str, Any]) -> dict[str, Any]:
    first, *others = _numbered(blocks)
    if not loop_length(1 + len(others)):
        return dict(blocks)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(blocks[name] for name in others))
    return {first: blocks[first], _STACK: stacked}


def _unstack(blocks: Mapping[str, Any]) -> dict[str, Any]:
    if _STACK not in blocks:
        return dict(blocks)
    blocks = dict(blocks)
    stacked = blocks.pop(_STACK)
    size = len(jax.tree.leaves(stacked)[0])
    return blocks | {
        f"block{i + 2}": jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(size)
    }
