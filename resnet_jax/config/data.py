"""Configurations of the data sets.

To add a kind of data, add a class here, make it a member of `DataConfig`, and add a case to
`resnet_jax.data.open_dataset`.
"""

import dataclasses
import math
from typing import ClassVar, Literal

from resnet_jax.config.augment import AugmentConfig
from resnet_jax.config.sampling import SamplingConfig
from resnet_jax.config.validation import require, require_not_negative, require_positive

Interpolation = Literal[
    "linear",
    "pil_bilinear",
    "pil_bicubic",
    "pil_lanczos",
    "pil_box",
    "pil_hamming",
    "pil_nearest",
]
"""How the host resizes images.

``"linear"`` is OpenCV's bilinear interpolation without antialiasing.  It is the fastest, and random
crops of JPEG files are also decoded less precisely for it.  The others are Pillow's interpolations,
which torchvision and timm use; they need only Pillow.  All but ``"pil_nearest"`` antialias, and
published weights use ``"pil_bilinear"`` or ``"pil_bicubic"``.
"""

CropMode = Literal["center", "squash", "border"]
"""How an image becomes the wanted shape, as in timm.

``"center"`` keeps the proportions and cuts off what is too long.  ``"squash"`` resizes height and
width separately.  ``"border"`` keeps the proportions and pads what is too short.
"""


@dataclasses.dataclass(frozen=True)
class DigitsConfig:
    """The handwritten digits of scikit-learn: 1,437 training and 360 test images."""

    kind: ClassVar[str] = "digits"

    evaluate_on: Literal["test", "validation"] = "test"
    """Images that accuracy is reported on. "validation" holds out 360 of the 1,437 training images
    and never reads the test images; use it to tune settings."""
    image_size: int = 16
    """Height and width in pixels after resampling. The original images have 8x8 pixels."""
    max_rotation: float = 15.0
    """Largest random rotation of a training image, in degrees, in both directions. 0 turns it
    off."""
    max_scaling: float = 0.15
    """Largest random magnification or reduction of a training image, as the natural logarithm of
    the factor. 0 turns it off."""
    max_shift: float = 1.0
    """Largest random shift of a training image, in pixels of the original image, horizontally and
    vertically. 0 turns it off."""

    @property
    def num_classes(self) -> int:
        """Number of classes: the digits from 0 to 9."""
        return 10

    def __post_init__(self) -> None:
        require_positive(self, "image_size")
        require_not_negative(self, "max_rotation", "max_scaling", "max_shift")


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Random images and labels, generated once, to measure speed without a data set."""

    kind: ClassVar[str] = "synthetic"

    image_size: int = 224
    """Height and width of the images in pixels."""
    num_classes: int = 1000
    """Number of classes that the labels are drawn from."""
    train_examples: int = 320
    """Number of training images."""
    test_examples: int = 64
    """Number of test images."""

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "num_classes", "train_examples", "test_examples")


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """How the host decodes, crops and resizes image files."""

    image_size: int = 224
    """Height and width of the network's input in pixels."""
    eval_image_size: int | None = None
    """Height and width of evaluation images in pixels. None uses image_size. A larger size than in
    training often gives a higher accuracy (Touvron et al. 2019)."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of the random crop of a training image, as a share of the image.
    Raise the first value for small data sets or short runs."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width divided by height of the random crop of a training image."""
    train_interpolation: Interpolation = "linear"
    """How training crops are resized. "linear" is OpenCV's, without antialiasing, and the fastest;
    the others are Pillow's, with antialiasing."""
    crop_fraction: float = 0.875
    """Side of the central evaluation crop divided by the short side of the resized image, above 0
    and at most 1. Published weights state the value they were evaluated with."""
    eval_interpolation: Interpolation = "pil_bilinear"
    """How evaluation images are resized. Published weights state one of Pillow's
    interpolations."""
    crop_mode: CropMode = "center"
    """How an evaluation image becomes a square: "center" cuts off what is too long, "squash"
    changes the proportions, and "border" pads what is too short with the mean."""
    repeats: int = 1
    """Number of times in a row that each drawn training image is used, with a new crop each time
    (repeated augmentation, Hoffer et al. 2019). The length of an epoch does not change, so an
    epoch draws fewer images. torchvision and timm also shorten the epoch, for which you set
    data.sampling.epoch_multiple to 256. 1 turns repeated augmentation off."""
    on_unreadable: Literal["fail", "skip"] = "fail"
    """What to do with a file that is not a complete image: "fail" ends the run, "skip" leaves the
    file out and reports it."""
    max_pixels: int = 178_956_970
    """Largest number of pixels of an image file. A larger one is treated like a file that is not a
    complete image. The default is Pillow's limit; an image needs up to 7 bytes of memory for each
    pixel, in each thread."""
    threads: int = 0
    """Number of threads that read and decode images, in each process. 0 uses every core that is
    available to the process."""
    workers: int = 0
    """Number of additional processes that load images. 0 loads them in the main process, which is
    enough unless Python's global lock limits the threads."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training images on the device."""

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "repeats", "max_pixels")
        if self.eval_image_size is not None:
            require_positive(self, "eval_image_size")
        require_not_negative(self, "threads", "workers")
        require(
            self.repeats == 1 or not self.augment.mixes or self.augment.mix_partner != "roll",
            f'augment.mix_partner "roll" would mix most images with copies of themselves, because '
            f"the {self.repeats} repeats of an image are neighbors in the batch; use random or "
            "flip",
        )
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            require(
                0 < low <= high < math.inf,
                f"{name} must be a smallest value above 0 and a largest value that is not below "
                f"it, but it is {(low, high)}",
            )
        require(
            self.crop_scale[1] <= 1,
            f"the largest crop_scale must be at most 1, but it is {self.crop_scale[1]}",
        )
        require(
            0 < self.crop_fraction <= 1,
            f"crop_fraction must be in (0, 1], but it is {self.crop_fraction}",
        )


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """Images in one folder for each class, or listed in a table."""

    kind: ClassVar[str] = "folder"

    path: str
    """Directory or table of images: a directory with train/CLASS/ and val/CLASS/ (or test/CLASS/),
    or with CLASS/ only; or a .csv, .tsv or .jsonl file with the columns image, label and,
    optionally, split. It may be a URL such as gs://BUCKET/DIRECTORY."""
    evaluation_share: float = 0.2
    """Share of the training images of each class that is held out for evaluation, above 0 and below
    1. It has no effect if the data has an evaluation split of its own."""
    hold_out_validation: bool = False
    """Also hold out evaluation_share of the training images if the data has a test split but no
    validation split. Training then reports the accuracy on them and never uses the test images.
    False reports it on the test images."""
    split_seed: int = 0
    """Seed that chooses the held-out images. Keep it to compare runs."""
    sampling: SamplingConfig = SamplingConfig()
    """Which training images an epoch visits, and how often."""
    images: ImageConfig = ImageConfig()
    """Decoding, cropping and augmentation of the images."""

    def __post_init__(self) -> None:
        require_not_negative(self, "split_seed")
        require(
            0 < self.evaluation_share < 1,
            f"evaluation_share must be above 0 and below 1, but it is {self.evaluation_share}",
        )


@dataclasses.dataclass(frozen=True)
class _TfdsSplits:
    directory: str
    """Directory of the prepared data set, which contains dataset_info.json; or, if name is given,
    the directory that contains the data set of that name. It may be a URL such as
    gs://BUCKET/DIRECTORY."""
    name: str | None = None
    """Name of the data set, with or without a version, such as imagenet2012 or imagenet2012:5.1.0.
    Without a version, the newest one is used. Leave it out if directory is the directory of the
    data set itself."""
    train_split: str = "train"
    """Split to train on, such as "train" or "train[:90%]"."""
    evaluation_split: str = "validation"
    """Split that accuracy is reported on. The best checkpoints are chosen by it unless its name
    begins with "test"."""
    image_key: str = "image"
    """Name of the feature that holds the image."""
    label_key: str = "label"
    """Name of the feature that holds the label."""


@dataclasses.dataclass(frozen=True)
class TfdsConfig(_TfdsSplits):
    """A data set that TensorFlow Datasets has prepared as array_record, parquet or TFRecord."""

    kind: ClassVar[str] = "tfds"

    sampling: SamplingConfig = SamplingConfig()
    """Which training images an epoch visits, and how often. Unless sampling.classes is "uniform",
    every image file is read once before the training."""
    images: ImageConfig = ImageConfig()
    """Decoding, cropping and augmentation of the images."""


@dataclasses.dataclass(frozen=True)
class TfdsArraysConfig(_TfdsSplits):
    """A prepared data set of small images of one size, such as CIFAR-10, kept in memory."""

    kind: ClassVar[str] = "tfds_arrays"

    sampling: SamplingConfig = SamplingConfig()
    """Which training images an epoch visits, and how often."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training images on the device."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LabeledArrays:
    class_names: tuple[str, ...] = ()
    """Name of each class, in the order of the labels. If there are none, each class is named by its
    number."""
    evaluation_split: Literal["test", "validation"] = "test"
    """Images that accuracy is reported on. "validation" holds out validation_share of the training
    images and never reads the test images; use it to tune settings."""
    validation_share: float = 0.1
    """Share of the training images of each class that is held out, above 0 and below 1. The same
    images are held out in every run. It has no effect if evaluation_split is "test"."""
    sampling: SamplingConfig = SamplingConfig()
    """Which training images an epoch visits, and how often."""
    augment: AugmentConfig = AugmentConfig(flip=0.0, mean=(0.5,), std=(0.25,))
    """Augmentation of training images on the device. A mean and a standard deviation with one value
    are those of all channels."""

    def __post_init__(self) -> None:
        require(
            0 < self.validation_share < 1,
            f"validation_share must be above 0 and below 1, but it is {self.validation_share}",
        )


@dataclasses.dataclass(frozen=True)
class IdxConfig(_LabeledArrays):
    """Small images in the IDX files of MNIST, Fashion-MNIST and others, kept in memory."""

    kind: ClassVar[str] = "idx"

    directory: str
    """Local directory that contains the files. A file may also be compressed with gzip, if its name
    ends with .gz."""
    train_images: str = "train-images-idx3-ubyte"
    """Name of the file of the training images, without .gz."""
    train_labels: str = "train-labels-idx1-ubyte"
    """Name of the file of the training labels, without .gz."""
    test_images: str = "t10k-images-idx3-ubyte"
    """Name of the file of the test images, without .gz."""
    test_labels: str = "t10k-labels-idx1-ubyte"
    """Name of the file of the test labels, without .gz."""


@dataclasses.dataclass(frozen=True)
class ArraysConfig(_LabeledArrays):
    """Small images in NumPy's files, or in arrays that a Python program gives, kept in memory.

    Images are uint8[N, H, W] or uint8[N, H, W, C], and labels are integers [N] or [N, 1], counted
    from 0. The default names are those of Keras.
    """

    kind: ClassVar[str] = "arrays"

    path: str | None = None
    """An .npz file with the arrays, or a directory with one .npy file for each. None stands for
    arrays that are given to `resnet_jax.training.train` itself."""
    train_images: str = "x_train"
    """Name of the array of the training images."""
    train_labels: str = "y_train"
    """Name of the array of the training labels."""
    test_images: str = "x_test"
    """Name of the array of the test images."""
    test_labels: str = "y_test"
    """Name of the array of the test labels."""


DataConfig = (
    DigitsConfig
    | SyntheticConfig
    | FolderConfig
    | TfdsConfig
    | TfdsArraysConfig
    | IdxConfig
    | ArraysConfig
)
"""Every kind of data set."""


def augmentation_of(config: DataConfig) -> AugmentConfig | None:
    """Return the augmentation of a data set, or None if it has no `AugmentConfig`."""
    return getattr(getattr(config, "images", config), "augment", None)
