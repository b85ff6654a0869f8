"""The accuracy of an export on labeled images, to compare it with that of the network."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from resnet_jax.data.dataset import DataError
from resnet_jax.data.labeled import LabeledImages
from resnet_jax.inference.class_names import match_classes
from resnet_jax.inference.classifier import Classifier


class Accuracy(NamedTuple):
    """Number of images whose class has the largest output.

    Attributes:
        right: Number of these images.
        images: Number of all images.
    """

    right: int
    images: int

    @property
    def top1(self) -> float:
        """Share of the images that are right, 0 to 1."""
        return self.right / self.images


def evenly_spaced(total: int, most: int | None) -> np.ndarray:
    """Return the indices of at most so many of the images, int64, in order.

    Images are often sorted by class, so that the first ones would be of a few classes.

    >>> evenly_spaced(10, 4).tolist(), evenly_spaced(2, None).tolist()
    ([0, 3, 6, 9], [0, 1])
    """
    count = total if most is None else min(total, most)
    return np.linspace(0, total - 1, count).round().astype(np.int64)


def accuracy(
    predict: Callable[[np.ndarray], np.ndarray],
    classifier: Classifier,
    data: LabeledImages,
    *,
    batch: int = 16,
    most: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Accuracy:
    """Return how many labeled images a function classifies correctly.

    Args:
        predict: From uint8[batch, H, W, C], as the preprocessing prepares images on the host, to
            probabilities or logits [batch, K].
        classifier: Its preprocessing and its class names are used.
        data: The images.
        batch: Number of images of each call. The last batch is filled with zeros.
        most: Largest number of images, evenly spaced. None takes all.
        progress: Called after each image.

    Raises:
        DataError: There are no images, or one cannot be read.
        ValueError: The classes of the data are not those of the network.
    """
    matched = match_classes(data.class_names, classifier.class_names)
    if not len(data):
        raise DataError(f"{data.name} has no images")
    preprocessing = classifier.preprocessing
    indices = evenly_spaced(len(data), most)
    right = 0
    for start in range(0, len(indices), batch):
        chunk = indices[start : start + batch]
        pixels = np.zeros((batch, *preprocessing.image_shape), np.uint8)
        labels = np.zeros(len(chunk), np.int64)
        for i, index in enumerate(chunk):
            image, label, name = data[int(index)]
            try:
                pixels[i] = preprocessing.on_host(image, max_pixels=classifier.max_pixels)
            except ValueError as error:
                raise DataError(f"{name}: {error}; repair or remove it") from error
            labels[i] = matched[label]
            progress()
        outputs = np.asarray(predict(pixels))[: len(chunk)]
        right += int(np.sum(outputs.argmax(axis=1) == labels))
    return Accuracy(right, len(indices))
