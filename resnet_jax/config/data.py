"""Configurations of the data sets.

A new kind of data is one more class here, one more member of `DataConfig`, and one more case of
`resnet_jax.data.open_dataset`.
"""

import dataclasses
import math
from typing import ClassVar, Literal

from resnet_jax.config.augment import AugmentConfig
from resnet_jax.config.validation import require, require_not_negative, require_positive


@dataclasses.dataclass(frozen=True)
class DigitsConfig:
    """scikit-learn's handwritten digits: 1,437 images to train on, 360 to test on."""

    kind: ClassVar[str] = "digits"

    evaluate_on: Literal["test", "validation"] = "test"
    """"validation" holds 360 of the 1,437 back for tuning and leaves the test images alone."""
    image_size: int = 16
    """Height and width that the 8x8 originals are resampled to, in pixels."""
    max_rotation: float = 15.0
    """Each training image is turned by up to this angle either way, in degrees."""
    max_scaling: float = 0.15
    """Each training image is magnified by up to this factor either way, as a natural logarithm."""
    max_shift: float = 1.0
    """Each training image is moved by up to this distance in y and in x, in original pixels."""

    @property
    def num_classes(self) -> int:
        """The digits from 0 to 9."""
        return 10

    def __post_init__(self) -> None:
        require_positive(self, "image_size")
        require_not_negative(self, "max_rotation", "max_scaling", "max_shift")


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Random images and labels, made once, to measure speed without a data set."""

    kind: ClassVar[str] = "synthetic"

    image_size: int = 224
    """Height and width, in pixels."""
    num_classes: int = 1000
    """Labels are drawn from this many classes."""
    train_examples: int = 320
    """Size of the training split, in images."""
    test_examples: int = 64
    """Size of the test split, in images."""

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "num_classes", "train_examples", "test_examples")


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """What the host does to images in files; a data set of them adds where they are."""

    image_size: int = 224
    """Height and width that the network gets, in pixels."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the area of a training image that is cut out."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width over height of it."""
    train_interpolation: Literal["linear", "pil_bilinear", "pil_bicubic"] = "linear"
    """How it is resized: OpenCV's without antialiasing is fastest, the others are Pillow's."""
    crop_fraction: float = 0.875
    """In evaluation, side of the central crop over the short side of the image, above 0 to 1."""
    eval_interpolation: Literal["linear", "pil_bilinear", "pil_bicubic"] = "pil_bilinear"
    """How the image is resized before it; published weights ask for Pillow's."""
    repeats: int = 1
    """Each image that an epoch draws comes so often in a row, cropped anew (repeated augmentation,
    Hoffer et al. 2019); the epoch is as long as ever."""
    on_unreadable: Literal["fail", "skip"] = "fail"
    """A file that is no whole image ends the run, or is skipped and reported."""
    threads: int = 0
    """That read and decode; 0 for as many as this process may use cores."""
    workers: int = 0
    """Processes of so many threads each; 0 leaves the threads in the main one."""
    augment: AugmentConfig = AugmentConfig()
    """What the device then does to training images."""

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "repeats")
        require_not_negative(self, "threads", "workers")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            require(
                0 < low <= high < math.inf,
                f"{name} must go from a number above 0 to one not below it, not {low} to {high}",
            )
        require(self.crop_scale[1] <= 1, f"crop_scale ends at 1, not at {self.crop_scale[1]}")
        require(
            0 < self.crop_fraction <= 1,
            f"crop_fraction must be in (0, 1], but it is {self.crop_fraction}",
        )


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """Images in a folder for each class, or named by a table."""

    kind: ClassVar[str] = "folder"

    path: str
    """Directory with train/CLASS/ and val/CLASS/ (or test/CLASS/), or with CLASS/ alone; or a .csv
    or .jsonl with columns image, label and perhaps split.  A path, or a URL such as gs://BUCKET."""
    evaluation_share: float = 0.2
    """Where there is no evaluation split, this share of the images of each class, above 0 and below
    1."""
    split_seed: int = 0
    """Decides which images those are."""
    images: ImageConfig = ImageConfig()
    """How the images are read."""

    def __post_init__(self) -> None:
        require_not_negative(self, "split_seed")
        require(
            0 < self.evaluation_share < 1,
            f"evaluation_share must be above 0 and below 1, but it is {self.evaluation_share}",
        )


@dataclasses.dataclass(frozen=True)
class _TfdsSplits:
    directory: str
    """Of the prepared data set, with dataset_info.json in it; or the one above, with a name.  A
    path, or a URL such as gs://BUCKET/DIRECTORY."""
    name: str | None = None
    """Such as imagenet2012 or imagenet2012:5.1.0."""
    train_split: str = "train"
    """Such as "train" or "train[:90%]"."""
    evaluation_split: str = "validation"
    """The accuracy is reported on it.  Unless its name begins with "test", checkpoints are chosen
    by it."""
    image_key: str = "image"
    """Name of the feature that holds the image."""
    label_key: str = "label"
    """Name of the feature that holds the label."""


@dataclasses.dataclass(frozen=True)
class TfdsConfig(_TfdsSplits):
    """A data set prepared by TensorFlow Datasets, as array_record, parquet or TFRecord."""

    kind: ClassVar[str] = "tfds"

    images: ImageConfig = ImageConfig()
    """How the images are read."""


@dataclasses.dataclass(frozen=True)
class TfdsArraysConfig(_TfdsSplits):
    """A data set of the same kind, of images of one size such as CIFAR-10's: kept in memory."""

    kind: ClassVar[str] = "tfds_arrays"

    augment: AugmentConfig = AugmentConfig()
    """What the device does to training images."""


DataConfig = DigitsConfig | SyntheticConfig | FolderConfig | TfdsConfig | TfdsArraysConfig
