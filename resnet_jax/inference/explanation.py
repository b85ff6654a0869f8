"""Explanations of predictions: which parts of a photograph speak for a class."""

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from resnet_jax.data.images.decode import MAX_PIXELS
from resnet_jax.data.preprocessing import ImageLike, Preprocessing, to_rgb
from resnet_jax.inference.explain import Method, heatmaps, overlay, uncropped
from resnet_jax.inference.stream import Batch
from resnet_jax.suggestions import did_you_mean, nearest

if TYPE_CHECKING:
    from resnet_jax.inference.classifier import Classifier

BATCH_SIZE = 16
"""Largest number of images that are explained at once. Gradients need more memory than logits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """How much each part of an image speaks for a class.

    Attributes:
        image: The image, as it was given.
        class_name: Name of the class.
        heat: float32[H, W], 0 to 1, at the resolution of the network's input.
        preprocessing: How the image became the input of the network.
        max_pixels: Largest number of pixels of an image file.
    """

    image: ImageLike
    class_name: str
    heat: np.ndarray
    preprocessing: Preprocessing
    max_pixels: int = MAX_PIXELS

    def overlay(self) -> np.ndarray:
        """Return the whole image in its own size, with the heat in color on top.

        The network sees the image cropped and resized, and the heat is put back to where it belongs
        in the image. What the crop cuts off is darkened. The image is read again, so that
        explanations of many large photographs need little memory.

        Returns:
            uint8[height, width, 3].

        Raises:
            ValueError: The image can no longer be decoded.
            OSError: The file can no longer be read.
        """
        pixels = to_rgb(self.image, max_pixels=self.max_pixels)
        box = self.preprocessing.box(pixels.shape)
        return overlay(pixels, uncropped(self.heat, box, pixels.shape))


def explain_batch(
    classifier: "Classifier",
    batch: Batch,
    target: int | None,
    *,
    method: Method,
    stage: int | None,
) -> Iterator[tuple[int, Explanation]]:
    """Yield the explanation of each image of a batch that can be read.

    Args:
        classifier: The network and its preprocessing.
        batch: Decoded images, with one view each.
        target: Index of the class to explain. None explains the most probable one of each image.
        method: See `explain`.
        stage: See `explain`.

    Yields:
        The index of the image among all images, and its explanation.

    Raises:
        ValueError: See `explain`.
    """
    if all(batch.errors):
        return
    images = classifier.preprocessing.on_device(batch.pixels[0])
    maps = heatmaps(
        classifier.model, classifier.variables, images, target, method=method, stage=stage
    )
    heat, classes = np.asarray(maps.heat), np.asarray(maps.target)
    for i, (image, error) in enumerate(zip(batch.images, batch.errors, strict=True)):
        if not error:
            yield (
                batch.first + i,
                Explanation(
                    image,
                    classifier.class_names[classes[i]],
                    heat[i],
                    classifier.preprocessing,
                    classifier.max_pixels,
                ),
            )


def class_index(class_names: Sequence[str], target: str | int) -> int:
    """Return the index of a class, given its name or its index.

    Raises:
        ValueError: There is no such class, or several have the name.

    >>> class_index(["cat", "dog"], "dog"), class_index(["cat", "dog"], 0)
    (1, 0)
    """
    if not isinstance(target, str):
        index = operator.index(target)
        if not 0 <= index < len(class_names):
            raise ValueError(
                f"the classes have the numbers 0 to {len(class_names) - 1}, but target is {index}"
            )
        return index
    found = [index for index, name in enumerate(class_names) if name == target]
    if len(found) == 1:
        return found[0]
    if found:
        numbers = ", ".join(map(str, found))
        raise ValueError(f"several classes are named {target!r}; give one of the numbers {numbers}")
    few = [*class_names[:5], *(["..."] if len(class_names) > 5 else [])]
    hint = did_you_mean(nearest(target, class_names), f"the classes are {', '.join(few)}")
    raise ValueError(f"there is no class {target!r}: {hint}")
