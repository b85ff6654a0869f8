"""Classification of images with a trained network."""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack, get_args

import jax
import numpy as np
from PIL import Image

from resnet_jax.data.images.decode import MAX_PIXELS
from resnet_jax.data.preprocessing import ImageLike, Preprocessing
from resnet_jax.inference import explanation
from resnet_jax.inference.calibration import Calibration, read_calibration, valid_calibration
from resnet_jax.inference.explain import Method, check_method
from resnet_jax.inference.measures import softmax
from resnet_jax.inference.onnx_runtime import Forward, compile_forward
from resnet_jax.inference.pretrained import ImageSize, find
from resnet_jax.inference.rundir import read_run
from resnet_jax.inference.stream import MAX_BATCH_SIZE, Batch, Outputs, decode_batches, image_name
from resnet_jax.models import Overrides, ResNet
from resnet_jax.weights import load_weights
from resnet_jax.weights.sources import Source

Images = ImageLike | Sequence[ImageLike]
"""One image, a list of images of any kinds and sizes, or an array uint8[N, H, W, C]."""


Backend = Literal["jax", "onnxruntime"]
"""What computes a network: XLA, or onnxruntime, which is faster on most CPUs."""


class Prediction(NamedTuple):
    """A class that an image may belong to.

    Attributes:
        class_name: Name of the class.
        probability: Probability that the network gives to it, 0 to 1.
        class_index: Position of the class among the logits, from 0. Two classes of ImageNet can
            have the same name.
    """

    class_name: str
    probability: float
    class_index: int | None = None


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
        max_pixels: Largest number of pixels of an image file. Larger images are refused, because a
            small file can announce so many pixels that the memory does not suffice.
        calibration: The temperature of the probabilities, and the threshold below which a
            prediction is uncertain.

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
        *,
        max_pixels: int = MAX_PIXELS,
        calibration: Calibration = Calibration(),
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

        self.max_pixels = max_pixels
        self.calibration = calibration

        def forward(variables: Any, images: jax.Array, logits: bool, features: bool) -> Outputs:
            images = preprocessing.on_device(images)
            maps = model.apply(variables, images, train=False, method="features")
            head: Any = partial(model.apply, variables, maps, method="forward_head")
            return Outputs(head() if logits else None, head(pre_logits=True) if features else None)

        self._prepare = preprocessing.on_device
        self._program = jax.jit(forward, static_argnames=("logits", "features"))
        self._forward: Forward = self._program

    @classmethod
    def from_pretrained(
        cls,
        source: Source | os.PathLike[str],
        model: str | ResNet | None = None,
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        image_size: ImageSize = "test",
        max_pixels: int = MAX_PIXELS,
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
                  in the layout of timm or ``transformers``, say the rest. Those that
                  `resnet-jax push` has written have a calibration, too;
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
            max_pixels: Largest number of pixels of an image file. Larger images are refused.
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
            max_pixels=max_pixels,
            calibration=_stored_calibration(source, variables)
            if found.calibration == Calibration()
            else valid_calibration(found.calibration, variables, f"the calibration of {name}"),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, backend: Backend = "jax") -> "Classifier":
        """Load a classifier that a training run has written.

        Args:
            path: A run directory such as ``runs/x``, whether or not the run is complete, from
                which the newest checkpoint is read; or one checkpoint of it, such as
                ``runs/x/checkpoints/20``. The moving averages are used if the run keeps any.
            backend: What computes the network, see `with_backend`.

        Raises:
            FileNotFoundError: The path does not exist.
            ValueError: It is neither a run nor a checkpoint, it has no checkpoint yet, the
                checkpoint is damaged or does not fit the network, or a version of resnet_jax
                wrote it that this version cannot read.
            ImportError: Orbax or the backend is not installed.
        """
        path = Path(path).expanduser()
        spec, variables = read_run(path)
        try:
            model = spec.create()
            variables = load_weights(model, variables)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
        calibration = _stored_calibration(path, variables)
        classifier = cls(
            model, variables, spec.preprocessing, spec.class_names, calibration=calibration
        )
        return classifier.with_backend(backend)

    def with_backend(self, backend: Backend) -> "Classifier":
        """Return this classifier with another library that computes the network.

        Logits, probabilities and features are equal up to rounding. Explanations are always
        computed by JAX.

        Args:
            backend: ``"jax"``, or ``"onnxruntime"``, which is faster on most CPUs. It computes in
                float32, on the CPU alone, and takes a second or more to prepare the network.

        Raises:
            ValueError: There is no such backend, or it cannot compute the network.
            ImportError: The backend is not installed.
        """
        if backend not in get_args(Backend):
            raise ValueError(
                f"backend must be one of {', '.join(get_args(Backend))}, but it is {backend!r}"
            )
        result = copy.copy(self)
        result._forward = self._program
        if backend == "onnxruntime":
            shape = self.preprocessing.image_shape
            result._forward = compile_forward(self.model, self.variables, self._prepare, shape)
        return result

    def rebuilt(
        self,
        *,
        model: ResNet | None = None,
        variables: Mapping[str, Any] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> "Classifier":
        """Return a classifier with other parts, and otherwise those of this one.

        Its programs are compiled anew, by JAX.
        """
        return Classifier(
            self.model if model is None else model,
            self.variables if variables is None else variables,
            self.preprocessing if preprocessing is None else preprocessing,
            self.class_names,
            max_pixels=self.max_pixels,
            calibration=self.calibration,
        )

    def calibrated(self, calibration: Calibration) -> "Classifier":
        """Return this classifier with another calibration. Weights and programs are shared."""
        result = copy.copy(self)
        result.calibration = calibration
        return result

    def with_host_preprocessing(self, preprocessing: Preprocessing) -> "Classifier":
        """Return this classifier with another preparation of images on the host.

        Weights and compiled programs are shared, so that the preparation on the device stays that
        of this classifier.

        Args:
            preprocessing: It gives images of the same shape.
        """
        if preprocessing.image_shape != self.preprocessing.image_shape:
            raise ValueError(
                f"the images must be {self.preprocessing.image_shape}, but the preprocessing gives "
                f"{preprocessing.image_shape}"
            )
        result = copy.copy(self)
        result.preprocessing = preprocessing
        return result

    def __call__(self, images: Images) -> np.ndarray:
        """Return the probabilities of the classes, float32[N, K].

        Args:
            images: One image (then N is 1), a list, or uint8[N, H, W, C]. Each image is an array
                uint8[H, W] or uint8[H, W, C] of any size, an image of Pillow, the bytes of an image
                file, or its path.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        return self.probabilities(self.logits(images))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities that belong to logits, float32[N, K].

        They are the softmax of the logits divided by the temperature of the calibration.

        Args:
            logits: float32[N, K], as `logits` returns them.
        """
        return softmax(logits / np.float32(self.calibration.temperature))

    def predict(self, images: Images, *, top: int = 5) -> list[list[Prediction]]:
        """Return the most probable classes of each image, the most probable first.

        Args:
            images: As in `__call__`.
            top: Number of classes. If the network has fewer, all are returned.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        return self.rank(self.logits(images), top=top)

    def rank(self, logits: np.ndarray, *, top: int = 5) -> list[list[Prediction]]:
        """Return the most probable classes for each row of logits, the most probable first.

        Args:
            logits: float32[N, K], as `logits` returns them.
            top: Number of classes. If the network has fewer, all are returned.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, but it is {top}")
        return [
            [
                Prediction(self.class_names[k], float(row[k]), int(k))
                for k in np.argsort(-row, kind="stable")[:top]
            ]
            for row in self.probabilities(logits)
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
        return self._outputs(images, features=False)

    def embed(self, images: Images) -> np.ndarray:
        """Return the pooled features before the head, float32[N, C].

        Args:
            images: As in `__call__`.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        return self._outputs(images, features=True)

    def explain(
        self,
        images: Images,
        target: str | int | None = None,
        *,
        method: Method = "grad-cam",
        stage: int | None = None,
    ) -> list[explanation.Explanation]:
        """Return which parts of each image speak for a class.

        Args:
            images: As in `__call__`.
            target: Name or index of the class. None explains the most probable class of each image.
            method: ``"grad-cam"``, ``"grad-cam++"`` or ``"integrated-gradients"``, see
                `resnet_jax.inference.explain`.
            stage: Number of the stage of the network, from 1, whose output Grad-CAM and Grad-CAM++
                weigh. None means the last. Earlier stages give finer maps, which depend less on the
                class.

        Returns:
            For each image, the explained class and the heatmap at the resolution of the input of
            the network, float32[H, W]. ``overlay()`` shows it on the image as a whole.

        Raises:
            ImageError: Some images cannot be read or decoded.
            ValueError: The network has no head; or the class, the method or the stage does not
                exist.
        """
        check_method(self.model, method, stage)
        index = None if target is None else explanation.class_index(self.class_names, target)
        return [
            explained
            for batch in self._decoded(images, explanation.BATCH_SIZE)
            for _, explained in explanation.explain_batch(
                self, batch, index, method=method, stage=stage
            )
        ]

    def preprocess(self, images: Images) -> jax.Array:
        """Return the input of the network, float32[N, H, W, C].

        The values are within one gray level of timm's evaluation transform, and of the transform
        of torchvision's weights.

        Args:
            images: As in `__call__`.

        Raises:
            ImageError: Some images cannot be read or decoded.
        """
        pixels = [batch.pixels[0, : len(batch.images)] for batch in self._decoded(images)]
        empty = np.empty((0, *self.preprocessing.image_shape), np.uint8)
        return self.preprocessing.on_device(np.concatenate([empty, *pixels]))

    def forward(
        self, pixels: np.ndarray, *, logits: bool = True, features: bool = False
    ) -> Outputs:
        """Run the network on a batch of images that the host has prepared.

        A program is compiled for each number of images. The call may return before the device is
        done.

        Args:
            pixels: uint8[N, H, W, C] from `Preprocessing.on_host`.
            logits: Whether to return the logits.
            features: Whether to return the pooled features before the head.

        Returns:
            The logits and the features, float32[N, K] and float32[N, C].
        """
        return self._forward(self.variables, pixels, logits=logits, features=features)

    def _outputs(self, images: Images, *, features: bool) -> np.ndarray:
        """Return the features or the logits of all images."""
        run = partial(self.forward, logits=not features, features=features)
        # JAX returns at once, so the next images are decoded while it computes.
        arrays = [
            (run(batch.pixels[0])[features], len(batch.images)) for batch in self._decoded(images)
        ]
        if not arrays:
            batch = np.zeros((1, *self.preprocessing.image_shape), np.uint8)
            program = partial(self._program, logits=not features, features=features)
            shape = jax.eval_shape(program, self.variables, batch)[features].shape
            return np.empty((0, *shape[1:]), np.float32)
        return np.concatenate([np.asarray(array)[:count] for array, count in arrays])

    def _decoded(self, images: Images, batch_size: int = MAX_BATCH_SIZE) -> Iterator[Batch]:
        """Yield decoded batches.

        Raises:
            ImageError: Some images cannot be read. It names all of them, and no batch is yielded
                after the first of them.
        """
        images = _as_list(images)
        reasons: dict[int, str] = {}
        for batch in decode_batches(
            images, self.preprocessing, batch_size=batch_size, max_pixels=self.max_pixels
        ):
            for index, error in enumerate(batch.errors, start=batch.first):
                if error:
                    reasons[index] = f"{image_name(index, images[index])}: {error}"
            if not reasons:
                yield batch
        if reasons:
            raise ImageError(reasons, len(images))


def _stored_calibration(source: Source | os.PathLike[str], variables: Any) -> Calibration:
    """Return the calibration that is stored with a run, or the default one."""
    return Calibration() if isinstance(source, Mapping) else read_calibration(source, variables)


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
