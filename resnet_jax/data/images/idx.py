"""The images of IDX files, one by one, for a report about the data set."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from resnet_jax.config import IdxConfig
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.idx import find_idx, read_labeled
from resnet_jax.data.images.paths import is_remote
from resnet_jax.data.images.source import Record


@dataclasses.dataclass(frozen=True)
class IdxImages:
    """The images of one split as an `ImageSource`. Each is encoded as a PGM file.

    Attributes:
        split: The images and labels.
        split_name: Name of the split, for the names of the images.
        class_names: Name of each label.
    """

    split: ArraySplit
    split_name: str
    class_names: tuple[str, ...]

    @property
    def labels(self) -> Sequence[int]:
        """Labels of all images."""
        return self.split.labels.tolist()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the images and labels."""
        return self.split.fingerprint

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Record:
        height, width, _ = self.split.image_shape
        pixels = self.split.images[index].tobytes()
        header = f"P5 {width} {height} 255\n".encode()
        return Record(header + pixels, int(self.split.labels[index]), self.name(index))

    def name(self, index: int) -> str:
        """Return the split and the number of an image, counted from 0."""
        return f"{self.split_name} image {index}"


def is_idx(directory: epath.PathLike) -> bool:
    """Return whether a local directory contains training images in a file with MNIST's name."""
    return not is_remote(directory) and find_idx(directory, IdxConfig.train_images) is not None


def open_idx_images(directory: epath.PathLike) -> dict[str, IdxImages]:
    """Return the splits of a directory whose files have MNIST's names.

    Raises:
        DataError: A file does not exist, is not a complete IDX file, or does not match the others.
    """
    splits = {
        "train": read_labeled(directory, IdxConfig.train_images, IdxConfig.train_labels),
        "test": read_labeled(directory, IdxConfig.test_images, IdxConfig.test_labels),
    }
    num_classes = 1 + max(int(split.labels.max()) for split in splits.values())
    class_names = tuple(map(str, range(num_classes)))
    return {name: IdxImages(split, name, class_names) for name, split in splits.items()}
