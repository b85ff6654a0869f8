"""Types and digests of the arrays of a state, as text that can be stored and compared."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

Descriptions = dict[str, dict[str, str]]


def describe_arrays(tree: Any) -> Descriptions:
    """Return the type and the SHA-256 of every array, by its path.

    For example ``{"params/head/bias": {"type": "float32[10]", "sha256": "e3b0..."}}``.  The digest
    covers the bytes in C order and does not depend on the sharding.  If an array is spread over the
    devices of several processes, all of them must call this function.
    """
    leaves = [(path, _whole(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    # Hashing releases the global interpreter lock.
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_sha256, [leaf for _, leaf in leaves]))
    return {
        _name(path): {"type": _type(leaf), "sha256": digest}
        for (path, leaf), digest in zip(leaves, digests, strict=True)
    }


def type_differences(stored: Descriptions, expected: Any) -> list[str]:
    """Return a line for every array that one side lacks or that differs in shape or dtype.

    Args:
        stored: What `describe_arrays` returned.
        expected: A tree of arrays or `jax.ShapeDtypeStruct`.
    """
    theirs = {name: description["type"] for name, description in stored.items()}
    ours = {
        _name(path): _type(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(expected)
    }
    return [
        f"{name} is {theirs.get(name, 'absent')} in it, {ours.get(name, 'absent')} here"
        for name in theirs | ours
        if theirs.get(name) != ours.get(name)
    ]


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, which does not depend on the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _whole(leaf: Any) -> Any:
    """Return the whole array in a form that this process can read."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return leaf


def _sha256(leaf: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _type(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
