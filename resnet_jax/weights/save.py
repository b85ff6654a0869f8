"""Writing of weights, for torchvision, timm and `load_weights` to read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.models import ResNet
from resnet_jax.weights.dialects.torch import to_state_dict, torch_rules
from resnet_jax.weights.load import load_weights


def save_weights(model: ResNet, variables: Mapping[str, Any], path: str | Path) -> None:
    """Writes variables under the names and in the layouts of torchvision and timm.

    The file appears whole or not at all, and holds exactly what `load_weights` asks for.

    Args:
        model: the network that the variables are of.
        variables: ``params`` and, where there are any, ``batch_stats``; written as float32.
        path: new file, ``.safetensors``.

    Raises:
        ValueError: the file exists, its directory does not, its name ends otherwise, or the
            variables are not those of the model.
        ImportError: safetensors is not installed.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the name of a weight file must end in .safetensors")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no such directory; create it")
    if path.exists():
        raise ValueError(f"{path}: the file exists; remove it or take another name")
    try:
        from safetensors.numpy import save
    except ImportError:
        raise ImportError(
            f"{path} needs the package safetensors: pip install 'resnet_jax[weights]'"
        ) from None

    collections = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
    rules = torch_rules(model)
    tensors = to_state_dict(collections, rules)
    if foreign := [name for name in tensors if "/" in name]:
        raise ValueError(f"{path}: not written, PyTorch has no variable {foreign[0]}")
    # A head that the model does not have is left out.
    tensors = to_state_dict(load_weights(model, tensors), rules)
    # Of a transposed array safetensors would write the bytes in their old order.
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
