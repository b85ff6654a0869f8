"""Predictions for any number of images: classes, probabilities, decisions and neighbors."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from resnet_jax.data.preprocessing import ImageLike
from resnet_jax.inference.calibration import UNCERTAIN
from resnet_jax.inference.classifier import Classifier, Prediction
from resnet_jax.inference.neighbors import Neighbor, Neighbors
from resnet_jax.inference.stream import Streamed, Tta, image_name, stream

# Number of images that are ranked at once.
_CHUNK = 16


class Predicted(NamedTuple):
    """What a network says about one image.

    Attributes:
        index: Position of the image in the input, from 0.
        image: Its path or URL, or ``"image 7"`` for an image without a name.
        classes: The most probable classes, the most probable first.
        decision: Name of the most probable class, or ``"uncertain"``. None without a threshold.
        neighbors: The most similar images of a collection, the most similar first. The image itself
            is left out.
        most_neighbors: Number of neighbors of an image that is not in the collection, which may be
            one more.
        features: float32[C], the pooled features, or None if they are not asked for.
        error: What is wrong with the image, or an empty string. With an error, there is nothing
            else.
    """

    index: int
    image: str
    classes: Sequence[Prediction] = ()
    decision: str | None = None
    neighbors: Sequence[Neighbor] = ()
    most_neighbors: int = 0
    features: np.ndarray | None = None
    error: str = ""


def predict_stream(
    classifier: Classifier,
    images: Iterable[ImageLike],
    *,
    top: int = 5,
    threshold: float | None = None,
    neighbors: Neighbors | None = None,
    features: bool = False,
    tta: Tta = "none",
    batch_size: int | None = None,
) -> Iterator[Predicted]:
    """Yield predictions for each image of an iterable, in order, with bounded memory.

    Args:
        classifier: The network. If it has no head, there are no classes and no decisions.
        images: Images of any kinds and sizes, also a generator; see `expand` for files.
        top: Number of classes and of neighbors. If there are fewer, all are returned.
        threshold: Lowest probability of the most probable class with which the image is said to
            belong to it, 0 to 1. Below it, the decision is ``"uncertain"``. None decides nothing.
        neighbors: Collection in which the most similar images are looked up.
        features: Whether to return the pooled features.
        tta: See `stream`.
        batch_size: See `stream`.

    Yields:
        One item for each image, also for those that cannot be read.

    Raises:
        ValueError: ``top``, ``threshold``, ``tta`` or ``batch_size`` is impossible, or there is a
            threshold, but the network has no head.
        ImportError: An image needs a package that is not installed.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, but it is {top}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"the threshold must be from 0 to 1, but it is {threshold}")
    if threshold is not None and not classifier.class_names:
        raise ValueError("the network has no head and no classes, so a threshold decides nothing")
    items = stream(
        classifier,
        images,
        logits=bool(classifier.class_names),
        features=features or neighbors is not None,
        tta=tta,
        batch_size=batch_size,
    )

    most = 0 if neighbors is None else min(top, len(neighbors))

    def generate() -> Iterator[Predicted]:
        # Neighbors of many images are found with one product of matrices.
        while chunk := list(itertools.islice(items, _CHUNK)):
            readable = [item for item in chunk if not item.error]
            classes = iter(_classes(classifier, readable, top))
            similar = iter(_neighbors(neighbors, readable, top))
            for item in chunk:
                name = image_name(item.index, item.image)
                if item.error:
                    yield Predicted(item.index, name, error=item.error)
                    continue
                ranked = next(classes)
                decision = None
                if threshold is not None:
                    certain = ranked[0].probability >= threshold
                    decision = ranked[0].class_name if certain else UNCERTAIN
                kept = item.features if features else None
                yield Predicted(item.index, name, ranked, decision, next(similar), most, kept)

    return generate()


def _classes(classifier: Classifier, items: Sequence[Streamed], top: int) -> list[list[Prediction]]:
    """Return the most probable classes of each image; none if the network has no head."""
    if not classifier.class_names or not items:
        return [[] for _ in items]
    return classifier.rank(np.array([item.logits for item in items]), top=top)


def _neighbors(
    collection: Neighbors | None, items: Sequence[Streamed], top: int
) -> list[list[Neighbor]]:
    """Return the neighbors of each image; none if there is no collection."""
    if collection is None or not items:
        return [[] for _ in items]
    names = [image_name(item.index, item.image) for item in items]
    features = np.array([item.features for item in items])
    return collection.nearest(features, count=top, images=names)
