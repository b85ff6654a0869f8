"""Classification of images with a trained network."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np
from PIL import Image

from resnet_jax.data.preprocessing import ImageLike, Preprocessing
from resnet_jax.inference.pretrained import ImageSize, find
from resnet_jax.inference.rundir import read_run
from resnet_jax.models import Overrides, ResNet
from resnet_jax.weights import load_weights
from resnet_jax.weights.sources import Source

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
        model: The network, with a head for K classes, or without a head (K is 0), if only `embed`
            is needed.
        variables: Its ``params`` and, if it has any, ``batch_stats``.
        preprocessing: How an image becomes the input of the network.
        class_names: K names, in the order of the logits.

    Raises:
        ValueError: The number of class names is not the number of classes of the network, or the
            preprocessing gives another number of channels than the network takes.
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
        if model.in_channels not in (None, preprocessing.channels):
            raise ValueError(
                f"the network takes {model.in_channels} channels, but the preprocessing gives "
                f"{preprocessing.channels}; pass a Preprocessing with channels={model.in_channels}"
            )
        self.model = model
        self.variables: dict[str, Any] = jax.device_put(dict(variables))
        self.preprocessing = preprocessing
        self.class_names = tuple(class_names)

        def apply(variables: Any, images: jax.Array) -> Any:
            return model.apply(variables, preprocessing.on_device(images), train=False)

        def embed(variables: Any, images: jax.Array) -> Any:
            images = preprocessing.on_device(images)
            return model.apply(variables, images, train=False, method="embed")

        self._apply, self._embed = jax.jit(apply), jax.jit(embed)

    @classmethod
    def from_pretrained(
        cls,
        source: Source | os.PathLike[str],
        model: str | ResNet | None = None,
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        image_size: ImageSize = "test",
        prefix: str | None = None,
        **overrides: Unpack[Overrides],
    ) -> "Classifier":
        """Load a classifier with published weights, or with weights of your own.

        Args:
            source: One of

                - the name of published weights, such as ``"resnet50.a1_in1k"``;
                  `resnet_jax.list_pretrained` lists them;
                - a repository of the Hugging Face hub, such as ``"hf://microsoft/resnet-50"``, or a
                  copy of one in a directory. Its ``config.json`` and ``preprocessor_config.json``,
                  in the layout of timm or ``transformers``, say the rest;
                - a run directory or a checkpoint of the trainer;
                - any other source of `resnet_jax.load_weights`, such as ``"resnet50.pth"``,
                  together with ``model``.
            model: Name of the network, for weights that do not say it. Its classes are counted in
                the weights. A name with a tag, such as ``"resnet50.tv2_in1k"``, brings the
                preprocessing of these published weights, and otherwise it is torchvision's: 224
                pixels, a central crop of 0.875, bilinear. A network of `resnet_jax.create_model`
                can be given too.
            class_names: One name for each logit. By default those of the source, the names of
                ImageNet if it has none and 1000, 11821 or 21843 classes, and otherwise the numbers
                of the logits.
            preprocessing: How an image becomes the input of the network. By default that of the
                source.
            image_size: Height and width of the input in pixels. ``"test"`` is the size on which
                the accuracy of published weights is measured, and ``"train"`` the one that timm
                uses by default, usually that of training; each has its own central crop.
            prefix: Which weights to use of a checkpoint with several networks, such as
                ``"teacher.backbone."``; see `resnet_jax.load_weights`.
            **overrides: Changes of the network, see `resnet_jax.create_model`, such as
                ``dtype=jnp.bfloat16``, or ``num_classes=0`` for embeddings alone.

        Returns:
            The network with its variables, preprocessing and class names.

        Raises:
            FileNotFoundError: There is no such file or directory.
            ValueError: The weights are unknown (the message suggests the nearest names), cannot be
                read or do not fit the network, or the class names do not fit the weights.
            ImportError: The source needs a package that is not installed.

        Examples:
            Three lines from a photo to its classes::

                classifier = Classifier.from_pretrained("resnet50.a1_in1k")
                for prediction in classifier.predict("cat.jpg")[0]:
                    print(prediction.class_name, prediction.probability)
        """
        found = find(source, model, image_size, overrides, prefix)
        if class_names is not None and len(class_names) != found.model.num_classes:
            raise ValueError(
                f"there are {len(class_names)} class names, but the weights have "
                f"{found.model.num_classes} classes; give one name for each class"
            )
        name = "the weights" if isinstance(source, Mapping) else os.fspath(source)
        try:
            variables = load_weights(found.model, found.weights, prefix=found.prefix)
        except ValueError as error:
            message = str(error)
            raise ValueError(message if name in message else f"{name}: {message}") from None
        return cls(
            found.model,
            variables,
            found.preprocessing if preprocessing is None else preprocessing,
            found.class_names if class_names is None else class_names,
        )

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
                uint8[H, W] or uint8[H, W, C] of any size, an image of Pillow, the bytes of an image
                file, or its path.

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
            ValueError: The network has no head.
        """
        if not self.class_names:
            raise ValueError("the network has no head and predicts no classes; use embed")
        return self._batched(self._apply, images)

    def embed(self, images: Images) -> np.ndarray:
        """Return the pooled features before the head, float32[N, C].

        Args:
            images: As in `__call__`.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        return self._batched(self._embed, images)

    def preprocess(self, images: Images) -> jax.Array:
        """Return the input of the network, float32[N, H, W, C].

        The values are within one gray level of timm's evaluation transform, and of the transform
        of torchvision's weights.

        Args:
            images: As in `__call__`.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        images = _as_list(images)
        batch = np.zeros((len(images), *self.preprocessing.image_shape), np.uint8)
        with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
            loaded = list(pool.map(self._load, range(len(images)), images, batch))
        if reasons := {index: reason for index, reason in loaded if reason}:
            raise ImageError(reasons, len(images))
        return self.preprocessing.on_device(batch)

    def _batched(
        self, function: Callable[[Any, np.ndarray], jax.Array], images: Images
    ) -> np.ndarray:
        """Return what a jitted function of variables and uint8 images gives for all images."""
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
                    outputs.append((function(self.variables, batch), count))
        if reasons:
            raise ImageError(reasons, len(images))
        if not outputs:
            batch = np.zeros((1, *self.preprocessing.image_shape), np.uint8)
            shape = jax.eval_shape(function, self.variables, batch).shape
            return np.empty((0, *shape[1:]), np.float32)
        return np.concatenate([np.asarray(output)[:count] for output, count in outputs])

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
    if isinstance(images, bytes | str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, jax.Array):
        images = np.asarray(images)
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
