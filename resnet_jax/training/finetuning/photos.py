"""What fine-tuning must know of the images: how many there are of each class, and the splits."""

from typing import NamedTuple

import numpy as np

from resnet_jax.config import FolderConfig


class Photos(NamedTuple):
    """The images of a folder or table.

    Attributes:
        counts: Number of training images of each class, by name.
        num_validation: Number of validation images.
        held_out: Whether the validation images are a part of the training images.
    """

    counts: dict[str, int]
    num_validation: int
    held_out: bool

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return sum(self.counts.values())

    @property
    def imbalance(self) -> float:
        """Number of images of the largest class, divided by that of the smallest."""
        return max(self.counts.values()) / max(1, min(self.counts.values()))


def count_photos(config: FolderConfig) -> Photos:
    """Count the images of the splits, without reading them.

    Args:
        config: The images, evaluated on a validation split.

    Raises:
        DataError: The images do not exist or cannot be used.
        ImportError: The libraries that read image files are not installed.
    """
    from resnet_jax.data.images.folder import open_splits

    train, validation = open_splits(
        config.path,
        evaluation_share=config.evaluation_share,
        seed=config.split_seed,
        hold_out=config.hold_out_validation,
    ).values()
    counts = np.bincount(train.labels, minlength=len(train.class_names)).tolist()
    names = dict(zip(train.class_names, counts, strict=True))
    return Photos(names, len(validation), validation.held_out)
