"""What a repository of weights describes, in whatever layout."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from resnet_jax.data.imagenet import imagenet_classes
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference.calibration import Calibration
from resnet_jax.models.resnet import ResNet

Json = Mapping[str, Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the levels of ImageNet's images, from 0 to 1."""

_IMAGENET = (1000, 11821, 21843)


class Description(NamedTuple):
    """What a repository says of its weights.

    Attributes:
        model: The network.
        preprocessing: How an image becomes its input, at the size of testing.
        training_preprocessing: The same at the size that timm uses by default, usually that of
            training.
        class_names: One name for each logit.
        calibration: How logits become probabilities.
    """

    model: ResNet
    preprocessing: Preprocessing
    training_preprocessing: Preprocessing
    class_names: tuple[str, ...]
    calibration: Calibration = Calibration()


def names_of(num_classes: int) -> tuple[str, ...]:
    """Return names for the classes of weights that come without names.

    They are those of ImageNet for the numbers of classes that it has, as in timm, and otherwise
    the indices of the logits.
    """
    if num_classes in _IMAGENET:
        return tuple(imagenet.name for imagenet in imagenet_classes(num_classes))
    return tuple(str(index) for index in range(num_classes))


def class_names(labels: Any, num_classes: int) -> tuple[str, ...]:
    """Return the names in a configuration, a list or a mapping from indices, or the usual ones."""
    if not labels or not num_classes:
        return names_of(num_classes)
    if isinstance(labels, Mapping):
        by_index = {int(index): name for index, name in labels.items()}
        labels = [by_index[index] for index in sorted(by_index)]
    return tuple(map(str, labels))


def for_channels(values: float | Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one value, or one per channel; for gray images the mean of those of a color image."""
    values = (values,) if isinstance(values, int | float) else tuple(values)
    if channels == 1 and len(values) > 1:
        return (sum(values) / len(values),)
    return values


def pil_filter(name: str) -> Any:
    """Return our name of a filter that timm and ``transformers`` know by Pillow's name."""
    return f"pil_{name}"
