"""Opening of the data set that a configuration describes."""

from resnet_jax.config import (
    DataConfig,
    DigitsConfig,
    FolderConfig,
    IdxConfig,
    SyntheticConfig,
    TfdsArraysConfig,
    TfdsConfig,
)
from resnet_jax.data.dataset import Dataset
from resnet_jax.data.digits import open_digits
from resnet_jax.data.idx import open_idx
from resnet_jax.data.synthetic import open_synthetic


def open_dataset(config: DataConfig) -> Dataset:
    """Open the data set that a configuration describes.

    Raises:
        DataError: The images do not exist or cannot be used.
        ImportError: The libraries that read image files are not installed.
    """
    match config:
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
