"""Classification of images with a trained network."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from resnet_jax.data.preprocessing import ImageLike, Preprocessing
from resnet_jax.inference.rundir import read_run
from resnet_jax.models import ResNet
from resnet_jax.weights import load_weights

Images = ImageLike | Sequence[ImageLike]
"""One image, a list of images of any kinds and sizes, or an array uint8[N, H, W, C]."""

# Each batch is padded to one of these sizes, so that at most four programs are compiled.
_BATCH_SIZES = (1, 4, 16, 64)


class Prediction(NamedTuple):
    """A class that an image may belong to.

    Attributes:
        class_name: Name of the class.
        probability: Probability that the network gives to it, 0 to 1.
    """

    class_name: str
    probability: float


class ImageError(ValueError):
    """Raised when images cannot be read or decoded; the message counts and names them.

    Attributes:
        reasons: What is wrong with each of them, by its position in the list of images.
    """

    def __init__(self, reasons: Mapping[int, str], total: int) -> None:
        few = list(reasons.values())[:3]
        more = ["..."] if len(reasons) > 3 else []
        super().__init__(
            f"{len(reasons)} of {total} images cannot be read: {'; '.join([*few, *more])}"
        )
        self.reasons = dict(reasons)


class Classifier:
    """A network with its variables, its preprocessing and the names of its classes.

    A classifier never changes, and several threads can use it at the same time.

    Args:
        model: The network, with a head for K classes.
        variables: Its ``params`` and, if it has any, ``batch_stats``.
        preprocessing: How an image becomes the input of the network.
        class_names: K names, in the order of the logits.

    Raises:
        ValueError: The number of class names is not the number of classes of the network.
    """

    def __init__(
        self,
        model: ResNet,
        variables: Mapping[str, Any],
        preprocessing: Preprocessing,
        class_names: Sequence[str],
    ) -> None:
        if len(class_names) != model.num_classes:
            raise ValueError(
                f"the network has {model.num_classes} classes, but there are "
                f"{len(class_names)} class names"
            )
        self.model = model
        self.variables: dict[str, Any] = jax.device_put(dict(variables))
        self.preprocessing = preprocessing
        self.class_names = tuple(class_names)

        def apply(variables: Any, images: jax.Array) -> Any:
            return model.apply(variables, preprocessing.on_device(images), train=False)

        self._apply = jax.jit(apply)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Classifier":
        """Load a classifier that a training run has written.

        Args:
            path: A run directory such as ``runs/x``, whether or not the run is complete, from
                which the newest checkpoint is read; or one checkpoint of it, such as
                ``runs/x/checkpoints/20``. The moving averages are used if the run keeps any.

        Raises:
            FileNotFoundError: The path does not exist.
            ValueError: It is neither a run nor a checkpoint, it has no checkpoint yet, the
                checkpoint is damaged or does not fit the network, or a version of resnet_jax
                wrote it that this version cannot read.
            ImportError: Orbax is not installed.
        """
        path = Path(path).expanduser()
        spec, variables = read_run(path)
        try:
            model = spec.create()
            variables = load_weights(model, variables)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
        return cls(model, variables, spec.preprocessing, spec.class_names)

    def __call__(self, images: Images) -> np.ndarray:
        """Return the probabilities of the classes, float32[N, K].

        Args:
            images: One image (then N is 1), a list, or uint8[N, H, W, C]. Each image is an array
                uint8[H, W] or uint8[H, W, C] of any size, the bytes of an image file, or its path.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        logits = self.logits(images)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def predict(self, images: Images, *, top: int = 5) -> list[list[Prediction]]:
        """Return the most probable classes of each image, the most probable first.

        Args:
            images: As in `__call__`.
            top: Number of classes. If the network has fewer, all are returned.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, but it is {top}")
        return [
            [
                Prediction(self.class_names[k], float(row[k]))
                for k in np.argsort(-row, kind="stable")[:top]
            ]
            for row in self(images)
        ]

    def logits(self, images: Images) -> np.ndarray:
        """Return the logits, float32[N, K].

        Args:
            images: As in `__call__`.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        images = _as_list(images)
        reasons: dict[int, str] = {}
        outputs: list[tuple[jax.Array, int]] = []
        with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
            for first, count, size in _batches(len(images)):
                chunk = images[first : first + count]
                batch = np.zeros((size, *self.preprocessing.image_shape), np.uint8)
                loaded = pool.map(self._load, range(first, first + count), chunk, batch)
                reasons |= {index: reason for index, reason in loaded if reason}
                # The remaining images are still decoded, so that the error names all bad ones.
                if not reasons:
                    # JAX returns at once, so the next images are decoded while it computes.
                    outputs.append((self._apply(self.variables, batch), count))
        if reasons:
            raise ImageError(reasons, len(images))
        fetched = [np.asarray(logits)[:count] for logits, count in outputs]
        return np.concatenate([np.empty((0, len(self.class_names)), np.float32), *fetched])

    def _load(self, index: int, image: ImageLike, out: np.ndarray) -> tuple[int, str]:
        """Write the pixels of an image, and return its index and what is wrong with it."""
        try:
            out[:] = self.preprocessing.on_host(image)
        except OSError as error:
            return index, f"{_name(index, image)}: {error.strerror or error}"
        except ValueError as error:
            return index, f"{_name(index, image)}: {error}"
        return index, ""


def _as_list(images: Images) -> Sequence[ImageLike]:
    if isinstance(images, bytes | str | os.PathLike):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim != 4:
        return [images]
    if not isinstance(images, Iterable):
        raise TypeError(
            f"images must be an array, bytes, a path or a list of them, not {type(images).__name__}"
        )
    return list(images)


def _batches(total: int) -> Iterator[tuple[int, int, int]]:
    """Yield the first index, the number of images, and the padded size of each batch.

    At least half of each batch are images.
    """
    first = 0
    while first < total:
        size = max(size for size in _BATCH_SIZES if size <= 2 * (total - first))
        count = min(size, total - first)
        yield first, count, size
        first += count


def _name(index: int, image: ImageLike) -> str:
    return str(image) if isinstance(image, str | os.PathLike) else f"image {index}"
