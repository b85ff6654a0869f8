"""Opening of the data set that a configuration describes."""

from collections.abc import Mapping

import numpy as np

from resnet_jax.config import (
    ArraysConfig,
    ConfigError,
    DataConfig,
    DigitsConfig,
    FolderConfig,
    IdxConfig,
    SyntheticConfig,
    TfdsArraysConfig,
    TfdsConfig,
)
from resnet_jax.data.arrays import open_arrays
from resnet_jax.data.dataset import Dataset
from resnet_jax.data.digits import open_digits
from resnet_jax.data.idx import open_idx
from resnet_jax.data.synthetic import open_synthetic


def open_dataset(config: DataConfig, arrays: Mapping[str, np.ndarray] | None = None) -> Dataset:
    """Open the data set that a configuration describes.

    Args:
        config: The configuration.
        arrays: Arrays by their names, for an `ArraysConfig` without a path.

    Raises:
        ConfigError: Arrays are missing, or are given for other data.
        DataError: The images do not exist or cannot be used.
        ImportError: The libraries that read image files are not installed.
    """
    if arrays is not None and not isinstance(config, ArraysConfig):
        raise ConfigError(
            f"arrays are given, but the data of the experiment are {config.kind}; set data to "
            "ArraysConfig()"
        )
    match config:
        case ArraysConfig():
            return open_arrays(config, arrays)
        case DigitsConfig():
            return open_digits(config)
        case SyntheticConfig():
            return open_synthetic(config)
        case IdxConfig():
            return open_idx(config)
        case FolderConfig() | TfdsConfig() | TfdsArraysConfig():
            try:
                from resnet_jax.data.images.opening import open_images
            except ImportError as error:
                raise ImportError(
                    f"reading image files needs {error.name}: pip install 'resnet-linen[data]'"
                ) from None
            return open_images(config)
