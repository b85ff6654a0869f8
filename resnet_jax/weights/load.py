"""Loading of weights, strict and with every tensor accounted for."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import ResNet
from resnet_jax.weights.torch_names import Rules, from_torch_layout, torch_name, torch_rules

# Stored by PyTorch since 0.4.1 to average statistics cumulatively; nothing here reads it.
_IGNORED_SUFFIX = "num_batches_tracked"


def load_weights(model: ResNet, source: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variables of a model from a state dict of torchvision or timm.

    Args:
        model: the network that the weights are for.
        source: PyTorch names to arrays, such as
            ``{k: v.numpy() for k, v in torch_model.state_dict().items()}``.

    Returns:
        ``{"params": ..., "batch_stats": ...}`` of float32 NumPy arrays, ready for
        ``model.apply(variables, images, train=False)``.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the message names them.
    """
    rules = torch_rules(model)
    abstract = jax.eval_shape(
        lambda key: model.init(
            key, jnp.zeros((1, 64, 64, _in_channels(source, rules))), train=False
        ),
        jax.random.key(0),
    )
    used: set[str] = set()
    problems: list[str] = []

    def take(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = torch_name([key.key for key in path], rules)
        used.add(name)
        if name not in source:
            problems.append(f"missing {name}")
            return np.empty(0)
        array = from_torch_layout(np.asarray(source[name], leaf.dtype), leaf.ndim)
        if array.shape != leaf.shape:
            problems.append(f"{name} has shape {array.shape} in our layout, expected {leaf.shape}")
        return array

    variables = jax.tree_util.tree_map_with_path(take, abstract)
    problems += [
        f"unexpected {name}"
        for name in source
        if name not in used and not name.endswith(_IGNORED_SUFFIX)
    ]
    if problems:
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"these weights do not fit the model: {shown}{more}")
    return variables


def _in_channels(source: Mapping[str, np.ndarray], rules: Rules) -> int:
    """Channels of the images that the weights were trained on, 3 if they do not say."""
    for conv in ("conv", "conv1"):
        stem = source.get(torch_name(["params", "stem", conv, "kernel"], rules))
        if stem is not None:
            return np.shape(stem)[1]
    return 3
