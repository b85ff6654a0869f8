"""Groups of parameters: frozen ones, and those of each layer."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.models.stacking import unstacked_paths

Path = tuple[str, ...]


def frozen(params: optax.Params, patterns: Sequence[str]) -> optax.Params:
    """True for every parameter whose path, such as ``stem/conv/kernel``, a pattern matches.

    Paths are those of the network without ``scan``.

    Args:
        params: of a model; shapes suffice.
        patterns: regular expressions, matched from the start of the path.

    Raises:
        ValueError: a pattern matches no parameter; the message names paths that are near.  Or
            the patterns match some of the blocks that ``scan`` holds in one array.
    """
    leaves: dict[Path, Any] = flatten_dict(params)
    paths = {names: unstacked_paths(names, leaf.shape) for names, leaf in leaves.items()}
    every = [path for parts in paths.values() for path in parts]
    for pattern in patterns:
        if not any(re.match(pattern, path) for path in every):
            near = difflib.get_close_matches(pattern, every, n=3, cutoff=0.0)
            raise ValueError(
                f"freeze: {pattern!r} matches no parameter; there are {', '.join(near)}"
            )

    def matched(parts: list[str]) -> bool:
        chosen = [path for path in parts if any(re.match(pattern, path) for pattern in patterns)]
        if chosen and len(chosen) < len(parts):
            (other, *_) = (path for path in parts if path not in chosen)
            raise ValueError(
                f"freeze: the patterns match {chosen[0]} and not {other}, which scan holds in one "
                "array; set model.scan to False"
            )
        return bool(chosen)

    return unflatten_dict({names: matched(parts) for names, parts in paths.items()})


def scale_by_depth(layer_decay: float) -> optax.GradientTransformation:
    """Multiplies updates by ``layer_decay`` to the power of the number of layers above.

    The stem is one layer, each block is one, and the head is the highest one.  The final
    normalisation of a pre-activation network belongs to its last block.  These are timm's groups
    (``group_matcher`` of its ``resnet.py`` and ``resnetv2.py``).
    """

    def update(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        del params
        layers = _layers(updates)
        last = max(max(numbers) for numbers in layers.values())

        def scale(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            names = tuple(key.key for key in path[:2])
            if names in layers:
                numbers = layers[names]
            elif names[0] == "final_norm":
                numbers = [last]
            else:
                numbers = [0] if names[0].startswith("stem") else [last + 1]
            factors = [layer_decay ** (last + 1 - number) for number in numbers]
            if len(factors) == 1:
                return leaf * factors[0]
            return leaf * jnp.asarray(factors, leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1))

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.stateless(update)


def _layers(params: optax.Params) -> dict[Path, range]:
    """The number of each block from the stem on, by stage and name; of stacked blocks, of each."""
    leaves: dict[Path, Any] = flatten_dict(params)
    sizes = {
        names[:2]: len(unstacked_paths(names, leaf.shape))
        for names, leaf in leaves.items()
        if names[0].startswith("stage")
    }
    layers, below = {}, 1
    for names in sorted(sizes, key=lambda names: [(len(name), name) for name in names]):
        layers[names] = range(below, below + sizes[names])
        below += sizes[names]
    return layers
