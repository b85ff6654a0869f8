"""Variables of identical blocks: one by one, or stacked as ``scan`` has them.

Unrolled, a stage has ``block1``, ``block2``, ...; scanned, it has ``block1``, and ``blocks`` with a
leading axis over all that follow, if they are worth a loop.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_BLOCK = re.compile(r"block(\d+)")
_STACK = "blocks"
# Blocks of a stage from which all but the first are a loop.  A loop needs kernels of its own, and
# of those that occur in several blocks XLA compiles one: fewer are quicker by themselves.
_FEWEST = 5


def loop_length(size: int) -> int:
    """How many blocks of a stage of so many ``scan`` runs as a loop, the last ones; 0 is none."""
    return size - 1 if size >= _FEWEST else 0


def stack_blocks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a network as the same network with ``scan=True`` has them.

    Args:
        variables: ``params``, ``batch_stats`` or others like them, of any network here; what is
            stacked already stays as it is.

    Returns:
        The same values, bit for bit.

    Raises:
        ValueError: they are the variables of one collection, without its name.
    """
    return _of_collections(_stack, variables)


def unstack_blocks(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `stack_blocks`: variables as a network with ``scan=False`` has them."""
    return _of_collections(_unstack, variables)


def unstacked_paths(path: Sequence[str], shape: Sequence[int]) -> list[str]:
    """The paths of the variables that `unstack_blocks` makes of one.

    >>> unstacked_paths(("stage1", "blocks", "norm1", "scale"), (2, 64))
    ['stage1/block2/norm1/scale', 'stage1/block3/norm1/scale']
    >>> unstacked_paths(("stem", "conv", "kernel"), (7, 7, 3, 64))
    ['stem/conv/kernel']
    """
    if path[1] != _STACK:
        return ["/".join(path)]
    stage, _, *layers = path
    return ["/".join((stage, f"block{i + 2}", *layers)) for i in range(shape[0])]


def _of_collections(
    change: Callable[[Mapping[str, Any]], dict[str, Any]], variables: Mapping[str, Any]
) -> dict[str, Any]:
    if "stage1" in variables:
        raise ValueError('these are variables of one collection; give {"params": ...} of them')
    return {name: _of_stages(change, tree) for name, tree in variables.items()}


def _of_stages(
    change: Callable[[Mapping[str, Any]], dict[str, Any]], tree: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        name: change(blocks) if name.startswith("stage") else blocks
        for name, blocks in tree.items()
    }


def _stack(blocks: Mapping[str, Any]) -> dict[str, Any]:
    numbered = sorted((int(m[1]), name) for name in blocks if (m := _BLOCK.fullmatch(name)))
    first, *others = [name for _, name in numbered]
    if not loop_length(len(numbered)):
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
