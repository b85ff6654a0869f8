"""The images of a collection that a network finds most similar to another image."""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from resnet_jax.data.dataset import printable
from resnet_jax.inference.stream import Tta, stream

if TYPE_CHECKING:
    from resnet_jax.inference.classifier import Classifier


class Neighbor(NamedTuple):
    """An image of the collection.

    Attributes:
        image: Its path or URL. It is `printable`.
        similarity: Cosine similarity of the features, -1 to 1.
    """

    image: str
    similarity: float


class Neighbors:
    """A collection of images, with the pooled features of each.

    Args:
        images: Paths or URLs of the N images.
        features: float32[N, C], as `Classifier.embed` returns them.
        errors: What is wrong with the images that are not in the collection, by their paths.

    Raises:
        ValueError: There are no images, or not one row of features for each.
    """

    def __init__(
        self,
        images: Sequence[str],
        features: np.ndarray,
        *,
        errors: dict[str, str] | None = None,
    ) -> None:
        if not len(images):
            raise ValueError("a collection without readable images has no neighbors")
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(
                f"the features of {len(images)} images must be [{len(images)}, C], but they are "
                f"{list(features.shape)}"
            )
        self.images = tuple(images)
        self.errors = dict(errors or {})
        self._directions = _normalized(features)
        self._positions = {os.path.realpath(image): i for i, image in enumerate(images)}

    @classmethod
    def of(
        cls,
        classifier: "Classifier",
        images: Iterable[str],
        *,
        tta: Tta = "none",
        batch_size: int | None = None,
    ) -> "Neighbors":
        """Compute the features of a collection.

        Args:
            classifier: The network.
            images: Paths or URLs. Those that cannot be read are left out, see ``errors``.
            tta: See `stream`.
            batch_size: See `stream`.

        Raises:
            ValueError: No image can be read.
        """
        names, rows, errors = [], [], {}
        for item in stream(
            classifier, images, logits=False, features=True, tta=tta, batch_size=batch_size
        ):
            name = str(item.image)
            if item.features is None:
                errors[name] = item.error
            else:
                names.append(name)
                # A copy, so that the rest of the batch can be freed.
                rows.append(item.features.copy())
        return cls(names, np.array(rows, np.float32), errors=errors)

    def __len__(self) -> int:
        return len(self.images)

    def nearest(
        self, features: np.ndarray, *, count: int, images: Sequence[str] = ()
    ) -> list[list[Neighbor]]:
        """Return the most similar images of the collection, the most similar first.

        Args:
            features: float32[B, C].
            count: Number of neighbors.
            images: Paths or URLs of the B images, so that none is its own neighbor. Without them,
                an image of the collection is its own nearest neighbor.

        Returns:
            For each image ``count`` neighbors, or as many as there are: N, or N - 1 for an image of
            the collection itself, if ``images`` are given.
        """
        similarities = _normalized(features) @ self._directions.T
        for row, image in enumerate(images):
            if (own := self._positions.get(os.path.realpath(image))) is not None:
                similarities[row, own] = -np.inf
        count = min(count, len(self))
        # Most images are not sorted. Equal similarities are in the order of the collection.
        chosen = np.sort(np.argpartition(-similarities, count - 1, axis=1)[:, :count], axis=1)
        return [
            [
                Neighbor(printable(self.images[i]), float(row[i]))
                for i in indices[np.argsort(-row[indices], kind="stable")]
                if row[i] != -np.inf
            ]
            for row, indices in zip(similarities, chosen, strict=True)
        ]


def _normalized(features: np.ndarray) -> np.ndarray:
    """Return rows of length 1; rows of zeros stay zeros."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(np.float32).tiny)
