"""Saving weights in a file for torchvision, timm and `load_weights`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.models import ResNet
from resnet_jax.weights.dialects.torch import to_state_dict, torch_rules
from resnet_jax.weights.load import load_weights


def save_weights(model: ResNet, variables: Mapping[str, Any], path: str | Path) -> None:
    """Save the variables of a model under the names and in the layouts of torchvision and timm.

    The file can be loaded with `load_weights`, which returns the same bits, and into the PyTorch
    model of the same name.  It is written completely or not at all.

    Args:
        model: The network, from `create_model`.
        variables: ``params`` and, if the network has any, ``batch_stats``; NumPy or JAX arrays.
            They are saved as float32.  A head that the model does not have is left out.
        path: The new file; its name must end in ``.safetensors``.

    Raises:
        ValueError: The file exists, its directory does not exist, its name has another suffix, or
            the variables do not fit the model.
        ImportError: safetensors is not installed.

    Examples:
        Convert a run of our trainer for PyTorch users::

            variables = load_weights(model, "runs/imagenet-resnet50")
            save_weights(model, variables, "resnet50.safetensors")
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the name of the file must end in .safetensors")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: its directory does not exist; create it")
    if path.exists():
        raise ValueError(f"{path}: the file exists already; remove it or choose another name")
    try:
        tensors = torch_tensors(model, variables)
    except ForeignVariableError as error:
        raise ValueError(f"{path}: not written, because {error}") from None
    write_safetensors(path, tensors, {"format": "pt"})


class ForeignVariableError(ValueError):
    """Raised for variables that PyTorch's networks do not have."""


def torch_tensors(model: ResNet, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the variables of a model under the names and in the layouts of torchvision and timm.

    Args:
        model: The network.
        variables: Its variables. A head that the model does not have is left out.

    Returns:
        float32 arrays, contiguous in memory.

    Raises:
        ValueError: The variables do not fit the model, or PyTorch has no such variable
            (`ForeignVariableError`).
    """
    collections = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
    rules = torch_rules(model)
    tensors = to_state_dict(collections, rules)
    if foreign := [name for name in tensors if "/" in name]:
        raise ForeignVariableError(f"PyTorch has no variable {foreign[0]}")
    # Loading checks that the variables fit, and leaves out a head that the model does not have.
    tensors = to_state_dict(load_weights(model, tensors), rules)
    # safetensors would write the bytes of a transposed array in their original order.
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, completely or not at all. A file that exists is replaced.

    Args:
        path: The file.
        tensors: Arrays that are contiguous in memory.
        metadata: What the header of the file says besides. ``{"format": "pt"}`` is what PyTorch's
            libraries expect.

    Raises:
        ImportError: safetensors is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise ImportError(
            f"{path} needs the package safetensors: pip install 'resnet-linen[weights]'"
        ) from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(dict(tensors), metadata=dict(metadata)))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
