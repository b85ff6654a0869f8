"""The published or earlier weights that a run starts from."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from resnet_jax.config import ConfigError, ModelConfig
from resnet_jax.models import ResNet
from resnet_jax.weights import load_weights
from resnet_jax.weights.sources import read_source

Tensors = Mapping[str, Any]


def read_starting_weights(config: ModelConfig, model: ResNet) -> Tensors:
    """Return the tensors in a source, after checking that they fit a network.

    The head is not checked, because the number of classes is not known before the data are opened.

    Args:
        config: Which weights to read; it names some.
        model: The network.

    Raises:
        ConfigError: The source cannot be read or belongs to another network; in one line.
    """
    try:
        tensors = read_source(str(config.weights))
    except (ImportError, OSError, ValueError) as error:
        raise _unusable(config, error) from error
    starting_variables(config, tensors, model.clone(num_classes=0))
    return tensors


def starting_variables(
    config: ModelConfig, tensors: Tensors, model: ResNet, key: jax.Array | None = None
) -> dict[str, Any]:
    """Return tensors as the variables of a network, in NumPy arrays.

    Args:
        config: Where the tensors come from, and which of them to take.
        tensors: What `read_starting_weights` returned.
        model: The network. If it has another number of classes, its head is initialized.
        key: PRNG key of the new head.

    Raises:
        ConfigError: The tensors belong to another network; in one line.
    """
    try:
        variables = load_weights(
            model, tensors, prefix=config.weights_prefix, new_head="if_needed", key=key
        )
    except ValueError as error:
        raise _unusable(config, error) from error
    return jax.tree.map(np.asarray, variables)


def _unusable(config: ModelConfig, error: Exception) -> ConfigError:
    return ConfigError(f"model.weights {config.weights}: {' '.join(str(error).split())}")
