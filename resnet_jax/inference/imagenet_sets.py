"""Test sets around ImageNet that have rules of their own: the labels of ReaL, and ImageNet-C.

ImageNetV2, ImageNet-A and ImageNet-R are folders of images, which `evaluate` takes as they are.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from resnet_jax.data.dataset import DataError
from resnet_jax.data.imagenet import imagenet_classes
from resnet_jax.data.labeled import LabeledImages, open_labeled
from resnet_jax.inference.class_names import is_imagenet, match_classes
from resnet_jax.inference.classifier import Classifier
from resnet_jax.inference.corruptions import SEVERITIES
from resnet_jax.inference.evaluation import Evaluation, evaluate
from resnet_jax.inference.measures import Measures, bootstrap_means, interval
from resnet_jax.inference.stream import Tta

_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})(?:\.|$)")

# Top-1 errors of AlexNet, the mean over the five severities, from Hendrycks and Dietterich's
# repository. They are the fifteen corruptions of the mean corruption error.
_ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


class RealAccuracy(NamedTuple):
    """Accuracy by the reassessed labels of ImageNet ("ReaL").

    Attributes:
        top1: Share of the images whose predicted class is one of their labels, 0 to 1.
        interval: 95 % confidence interval, see `resnet_jax.inference.measures.interval`.
        images: Number of images with a label.
        unlabeled: Number of images without a label, which are left out.
    """

    top1: float
    interval: tuple[float, float]
    images: int
    unlabeled: int


def read_real_labels(path: Path) -> list[list[int]]:
    """Read ``real.json``: for each validation image of ImageNet, the indices of its classes.

    Args:
        path: The file of github.com/google-research/reassessed-imagenet.

    Raises:
        DataError: The file cannot be read, or is not a list of lists of class indices.
    """
    try:
        labels = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(labels, list) or not all(map(_is_label_list, labels)):
        raise DataError(
            f"{path} must be a list of lists of class indices from 0 to 999, as in real.json of "
            "github.com/google-research/reassessed-imagenet"
        )
    return labels


def _is_label_list(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(label, int) and 0 <= label < 1000 for label in value
    )


def real_accuracy(evaluation: Evaluation, labels: Sequence[Sequence[int]]) -> RealAccuracy:
    """Return the accuracy by the reassessed labels of ImageNet.

    A prediction is right if it is any of the labels of the image.  Images without labels, and those
    that cannot be read, are left out.

    Args:
        evaluation: Evaluation of validation images of ImageNet, whose files have their original
            names, such as ``ILSVRC2012_val_00000001.JPEG``, with all 1000 classes.
        labels: As `read_real_labels` returns them.

    Raises:
        DataError: A file has another name, no image has a label, or the classes are not those of
            ImageNet-1k.

    Reference:
        Beyer et al. 2020, arXiv:2006.07159.
    """
    if not is_imagenet(evaluation.class_names):
        raise DataError(
            "the labels of ReaL are for the 1000 classes of ImageNet-1k, and the model has others"
        )
    # From the order of the logits to the order of ImageNet.
    position = match_classes([entry.synset for entry in imagenet_classes()], evaluation.class_names)
    index_of = np.argsort(position)
    read = np.flatnonzero(evaluation.mask)
    right = []
    for i, prediction in zip(read.tolist(), evaluation.scores.prediction, strict=True):
        if of_image := labels[_validation_index(evaluation.names[i], len(labels))]:
            right.append(index_of[prediction] in of_image)
    if not right:
        raise DataError(f"none of the {len(read)} images has a label in real.json")
    values = np.array(right, np.float64)[:, None]
    return RealAccuracy(
        top1=float(values.mean()),
        interval=interval(bootstrap_means(values)[:, 0]),
        images=len(right),
        unlabeled=len(read) - len(right),
    )


def _validation_index(name: str, count: int) -> int:
    found = _VALIDATION_IMAGE.search(name)
    number = int(found[1]) if found else 0
    if not 1 <= number <= count:
        raise DataError(
            f"{name} is not one of the {count} images of real.json; the files must have their "
            "original names, such as ILSVRC2012_val_00000001.JPEG"
        )
    return number - 1


@dataclasses.dataclass(frozen=True)
class ImageNetC:
    """Results on ImageNet-C.

    Attributes:
        measures: Measures at the severities 1 to 5, for each corruption in the directory.
    """

    measures: Mapping[str, Sequence[Measures]]

    @property
    def mean_error(self) -> float:
        """Top-1 error, 0 to 1, the mean over all corruptions and severities in the directory."""
        return float(np.mean([1 - m.top1 for row in self.measures.values() for m in row]))

    @property
    def mean_corruption_error(self) -> float | None:
        """The mCE: errors as multiples of AlexNet's, the mean over the fifteen corruptions.

        It is 1 for AlexNet. None if one of the fifteen is not in the directory.
        """
        if not set(_ALEXNET_ERRORS) <= set(self.measures):
            return None
        ratios = [
            np.mean([1 - m.top1 for m in self.measures[corruption]]) / error
            for corruption, error in _ALEXNET_ERRORS.items()
        ]
        return float(np.mean(ratios))


def open_imagenet_c(path: str) -> dict[str, list[LabeledImages]]:
    """Open the directory of ImageNet-C, CORRUPTION/SEVERITY/SYNSET/image.

    Args:
        path: The directory, such as one that contains ``gaussian_noise/1/n01440764``. It may have
            some of the corruptions only, but each with the severities 1 to 5.

    Returns:
        The images of each corruption at the severities 1 to 5.

    Raises:
        DataError: The directory does not exist or is arranged otherwise.
    """
    directory = Path(path).expanduser()
    if not directory.is_dir():
        raise DataError(f"{path} is not a directory; give that of ImageNet-C")
    corruptions = sorted(_folders(directory))
    if not corruptions:
        raise DataError(f"{path} has no folders; ImageNet-C has CORRUPTION/SEVERITY/SYNSET")
    expected = {str(severity) for severity in SEVERITIES}
    for corruption in corruptions:
        if set(_folders(directory / corruption)) != expected:
            raise DataError(
                f"{directory / corruption} must have the folders 1 to 5 of the severities; "
                "ImageNet-C has CORRUPTION/SEVERITY/SYNSET, such as gaussian_noise/1/n01440764"
            )
    return {
        corruption: [
            open_labeled(str(directory / corruption / str(severity)), "all")
            for severity in SEVERITIES
        ]
        for corruption in corruptions
    }


def _folders(directory: Path) -> Iterator[str]:
    return (child.name for child in directory.iterdir() if child.is_dir() and child.name[0] != ".")


def evaluate_imagenet_c(
    classifier: Classifier,
    sets: Mapping[str, Sequence[LabeledImages]],
    *,
    on_unreadable: Literal["fail", "skip"] = "fail",
    tta: Tta = "none",
    progress: Callable[[], None] = lambda: None,
) -> ImageNetC:
    """Return the results of a classifier on ImageNet-C.

    The images have been cropped to 224 x 224 pixels already.  They are not cropped again, and are
    resized only if the network takes another size.

    Args:
        classifier: See `evaluate`.
        sets: As `open_imagenet_c` returns them.
        on_unreadable: See `evaluate`.
        tta: See `evaluate`.
        progress: See `evaluate`.

    Raises:
        DataError: As for `evaluate`.
        ValueError: As for `evaluate`.

    Reference:
        Hendrycks and Dietterich 2019, arXiv:1903.12261.
    """
    whole = classifier.with_host_preprocessing(
        dataclasses.replace(classifier.preprocessing, crop_fraction=1.0)
    )
    return ImageNetC(
        {
            corruption: [
                evaluate(
                    whole, data, on_unreadable=on_unreadable, tta=tta, progress=progress
                ).measures
                for data in severities
            ]
            for corruption, severities in sets.items()
        }
    )
