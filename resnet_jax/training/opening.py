"""Opening of a run: everything that can be refused before long work begins."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from resnet_jax.config import ConfigError, TrainConfig
from resnet_jax.training.setup import Run, check
from resnet_jax.training.starting_weights import read_starting_weights


def open_run(
    config: TrainConfig,
    *,
    read_weights: bool,
    devices: Sequence[jax.Device] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Run:
    """Return the run of an experiment. What can be refused before the data are opened, is.

    Args:
        config: The experiment.
        read_weights: Whether to read the weights that the run starts from, if there are any.
        devices: Devices to train on; by default all.
        arrays: Arrays by their names, for data without a path; see `ArraysConfig`.

    Raises:
        ConfigError: The experiment cannot work; the message says what to change.
        DataError: The images do not exist or cannot be used.
    """
    try:
        model, mesh = check(config, devices)
        weights = None
        if config.model.weights and read_weights:
            weights = read_starting_weights(config.model, model)
        return Run.open(config, model, mesh, weights, arrays)
    except (ImportError, ValueError) as error:
        raise ConfigError(str(error)) from error
