"""A network that finds light, so that the right explanation of its predictions is known."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax import create_model
from resnet_jax.models import ResNet
from resnet_jax.models.shortcuts import PadShortcut


def light_detector() -> tuple[ResNet, Any]:
    """Return a network with one logit for light and one for darkness.

    The first convolution and all shortcuts pass brightness on, and the residual branches are 0.
    The logits are the sum of the brightness of all channels, and 0.1 minus this sum.
    """
    model = create_model(
        "cifar_resnet20",
        num_classes=2,
        width=4,
        stage_sizes=(1, 1, 1),
        shortcut=PadShortcut,
    )
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), shape)

    def value(path: Any, leaf: Any) -> np.ndarray:
        names = [key.key for key in path]
        array = np.zeros(leaf.shape, np.float32)
        if names[1:] == ["stem", "conv", "kernel"]:
            array[1, 1] = 1 / 3
        elif names[1:] == ["head", "kernel"]:
            array[:, 0], array[:, 1] = 1, -1
        elif names[1:] == ["head", "bias"]:
            array[1] = 0.1
        elif names[-1] == "var" or names[1:] == ["stem", "norm", "scale"]:
            array[:] = 1
        return array

    return model, jax.tree_util.tree_map_with_path(value, variables)
