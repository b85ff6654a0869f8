"""Images and labels in NumPy's files, or in arrays of a Python program."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from resnet_jax.config import ArraysConfig, ConfigError
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.dataset import DataError, Dataset, printable
from resnet_jax.data.labeled_arrays import Named, labeled_dataset, labeled_split


def open_arrays(config: ArraysConfig, arrays: Mapping[str, np.ndarray] | None = None) -> Dataset:
    """Return the images of an .npz file, of a directory of .npy files, or of given arrays.

    Files are never unpickled, so that reading them executes nothing.

    Args:
        config: The file, and the names of the arrays in it.
        arrays: The arrays by their names, if ``config.path`` is None.

    Raises:
        ConfigError: There is neither a path nor arrays, or there are both.
        DataError: A file or an array does not exist, cannot be read, or does not match the others.
    """
    if (config.path is None) == (arrays is None):
        raise ConfigError(
            "data.path is not set, so a Python program must give the arrays, by "
            "resnet_jax.training.train(config, arrays={...}); or set data.path to an .npz file"
            if arrays is None
            else f"data.path is {config.path}, and arrays are given as well; leave out either"
        )

    def array(name: str) -> Named:
        if config.path is not None:
            return Named(f"{config.path}: {name}", read_array(config.path, name))
        assert arrays is not None
        if name not in arrays:
            raise DataError(_missing("the given arrays", name, list(arrays)))
        return Named(name, np.asarray(arrays[name]))

    def read(images: str, labels: str) -> ArraySplit:
        return labeled_split(array(images), array(labels))

    return labeled_dataset(config, printable(config.path or "arrays"), read)


def read_array(path: str, name: str) -> np.ndarray:
    """Return one array of an .npz file, or of a directory of .npy files.

    Args:
        path: The file or the directory.
        name: Name of the array, without ``.npy``.

    Raises:
        DataError: There is no such file or array, or it is damaged, or it needs unpickling.
    """
    place = Path(path).expanduser()
    try:
        if place.is_dir():
            file = place / f"{name}.npy"
            if not file.is_file():
                raise DataError(_missing(path, name, [found.stem for found in place.glob("*.npy")]))
            return np.load(file, allow_pickle=False)
        # NumPy does not close a damaged file that it has opened itself.
        with place.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise DataError(
                    f"{path} holds a single array; give an .npz file, or the directory of the "
                    ".npy files"
                )
            if name not in stored:
                raise DataError(_missing(path, name, list(stored)))
            return stored[name]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give the path of an .npz file") from None
    except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read as NumPy's arrays ({reason}); write it again with np.savez, "
            "from arrays that are no objects"
        ) from None


def _missing(place: str, name: str, names: list[str]) -> str:
    found = ", ".join(sorted(names)) or "none"
    return (
        f"{place}: there is no array {name}, but {found}; name the arrays with data.train_images, "
        "data.train_labels, data.test_images and data.test_labels"
    )
