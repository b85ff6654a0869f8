"""Random variables of networks, drawn by NumPy, because JAX would compile a program per shape."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.typing import ArrayLike

from resnet_jax import ResNet
from resnet_jax.weights.structure import structure

Variables = dict[str, Any]


def abstract_variables(model: nn.Module, images: ArrayLike | jax.ShapeDtypeStruct) -> Variables:
    """Return shapes and dtypes of the variables of a model, given images or their shape."""
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)


def random_variables(model: nn.Module, images: ArrayLike) -> Variables:
    """Return variables whose leaves all differ and whose scales and variances are positive."""
    rng = np.random.default_rng(1)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)

    if isinstance(model, ResNet) and not model.scan:
        # `tests/weights/test_structure.py` proves that this tree is the same.  It takes less time.
        abstract = structure(model, np.shape(images)[-1])
    else:
        abstract = abstract_variables(model, images)
    return jax.tree_util.tree_map_with_path(draw, abstract)
