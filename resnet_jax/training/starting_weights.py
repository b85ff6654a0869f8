"""The published or earlier weights that a run starts from."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from resnet_jax.config import ConfigError
from resnet_jax.models import ResNet
from resnet_jax.weights import load_weights
from resnet_jax.weights.sources import read_source

Tensors = Mapping[str, Any]


def read_starting_weights(source: str, model: ResNet) -> Tensors:
    """Return the tensors in a source, after checking that they fit a network.

    The head is not checked, because the number of classes is not known before the data are opened.

    Args:
        source: A file, hf://OWNER/NAME, or the directory of a run.
        model: The network.

    Raises:
        ConfigError: The source cannot be read or belongs to another network; in one line.
    """
    try:
        tensors = read_source(source)
    except (ImportError, OSError, ValueError) as error:
        raise _unusable(source, error) from error
    starting_variables(source, tensors, model.clone(num_classes=0))
    return tensors


def starting_variables(
    source: str, tensors: Tensors, model: ResNet, key: jax.Array | None = None
) -> dict[str, Any]:
    """Return tensors as the variables of a network, in NumPy arrays.

    Args:
        source: Where the tensors come from, for the error.
        tensors: What `read_starting_weights` returned.
        model: The network. If it has another number of classes, its head is initialized.
        key: PRNG key of the new head.

    Raises:
        ConfigError: The tensors belong to another network; in one line.
    """
    try:
        variables = load_weights(model, tensors, new_head="if_needed", key=key)
    except ValueError as error:
        raise _unusable(source, error) from error
    return jax.tree.map(np.asarray, variables)


def _unusable(source: str, error: Exception) -> ConfigError:
    return ConfigError(f"model.weights {source}: {' '.join(str(error).split())}")
