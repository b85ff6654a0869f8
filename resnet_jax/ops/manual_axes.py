"""The mesh axes over which an array varies inside `jax.shard_map`.

By default (``check_vma=True``), `jax.shard_map` records in the type of each array over which of its
axes the devices hold different values.  Operations of `jax.numpy` and `jax.lax` make their operands
vary alike.  The branches of a conditional, the carry of a loop and the rules of a custom gradient
must do so themselves.

Outside of `jax.shard_map` no array varies, and the functions here return their arguments.
"""

from typing import Any

import jax


def varying_axes(*trees: Any) -> frozenset[Any]:
    """Return the mesh axes over which any array of the trees varies."""
    axes: frozenset[Any] = frozenset()
    return axes.union(*(jax.typeof(leaf).mat.varying for leaf in jax.tree.leaves(trees)))


def vary_over(axes: frozenset[Any], tree: Any) -> Any:
    """Return the tree with every array typed as varying over the axes; the values stay the same.

    The gradient of an array that did not vary before is the sum over the devices.
    """

    def vary(leaf: Any) -> Any:
        missing = axes - jax.typeof(leaf).mat.varying
        return jax.lax.pcast(leaf, tuple(sorted(missing)), to="varying") if missing else leaf

    return jax.tree.map(vary, tree) if axes else tree


def within_shard_map() -> bool:
    """Return whether JAX traces a function for `jax.shard_map`."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def partly_manual() -> bool:
    """Return whether `jax.shard_map` has made some axes of the mesh manual, but not all of them."""
    mesh = jax.sharding.get_abstract_mesh()
    return bool(mesh.manual_axes) and not mesh.are_all_axes_manual
