"""Groups of parameters: those that decay, those that are frozen, and those of each layer."""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.config import DecayOn
from resnet_jax.models.stacking import is_stacked, unstacked_paths

Path = tuple[str, ...]

# Normalization layers whose names in torchvision and timm do not contain "bn", such as
# `downsample.1`, `conv1.1` and `maxpool.1`.
_NOT_NAMED_BN = re.compile(r".*/shortcut/|stem/norm[12]/|stem_pool/|.*/output_norm/")


def is_kernel(params: optax.Params) -> optax.Params:
    """Return True for kernels of convolutions and dense layers, False for scales and biases."""
    return _by_path(lambda path, _: path[-1] == "kernel", params)


def is_convolution(params: optax.Params) -> optax.Params:
    """Return True for the kernels of convolutions over images, which are float[H, W, I, O]."""
    return _by_path(
        lambda path, leaf: path[-1] == "kernel" and leaf.ndim - is_stacked(path) == 4, params
    )


def is_not_norm(params: optax.Params) -> optax.Params:
    """Return False for the parameters of normalization layers."""
    return _by_path(lambda path, _: not _is_norm(path), params)


def is_not_named_norm(params: optax.Params) -> optax.Params:
    """Return False for the parameters whose name in PyTorch contains "bn".

    The names are those of torchvision and of timm's ``resnet.py``.
    """
    return _by_path(
        lambda path, _: not _is_norm(path) or bool(_NOT_NAMED_BN.match("/".join(path))), params
    )


DECAYED: dict[DecayOn, Callable[[optax.Params], optax.Params] | None] = {
    "kernels": is_kernel,
    "all": None,
    "all_but_norm": is_not_norm,
    "all_but_named_norm": is_not_named_norm,
}
"""True for the parameters that decay, see `DecayOn`. None if all of them do."""


def _is_norm(path: Path) -> bool:
    return any("norm" in name for name in path)


def _by_path(function: Callable[..., Any], *trees: Any) -> Any:
    """Return the results of a function of the path and the arrays of each parameter."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(tuple(key.key for key in path), *leaves), *trees
    )


def each_array(function: Callable[..., jax.Array], *trees: Any) -> Any:
    """Return the results of a function of each array, see `Parameters` of configurations."""
    return _by_path(
        lambda path, *leaves: (jax.vmap(function) if is_stacked(path) else function)(*leaves),
        *trees,
    )


def frozen(params: optax.Params, patterns: Sequence[str]) -> optax.Params:
    """Return True for each parameter whose path a pattern matches, else False.

    Args:
        params: Parameters of a network; shapes suffice.
        patterns: Regular expressions, matched from the start of a path such as
            ``stem/conv/kernel``. Paths are those of the network without ``scan``.

    Raises:
        ValueError: A pattern matches no parameter; the message names similar paths.  Or the
            patterns match only some of the blocks that ``scan`` holds in one array.
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
    """Return a transformation that scales updates by ``layer_decay ** n`` for n layers above.

    The stem is one layer, each block is one layer, and the head is the highest layer.  The final
    normalization of a pre-activation network belongs to its last block.  timm has the same groups
    (``group_matcher`` in its ``resnet.py`` and ``resnetv2.py``).
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
    """Return the layer numbers of each block by stage and name; stacked blocks have several."""
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
