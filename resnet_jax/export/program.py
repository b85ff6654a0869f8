"""The function that every format exports: from pixels to probabilities, with plain arrays.

Each format traces `Program.function` with abstract images, and stores `Program.variables` and what
`describe` says.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from resnet_jax.inference.classifier import Classifier
from resnet_jax.inference.fold import fold_batch_norm
from resnet_jax.models import unstack_blocks
from resnet_jax.ops.platform import formulation

InputType = Literal["uint8", "float32"]
"""Images as pixels, which the program normalizes, or as the normalized input of the network."""

OutputType = Literal["probabilities", "logits"]
"""What the program returns for each class."""

SCHEMA_VERSION = 1
"""Version of the metadata that `describe` returns."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What an export computes.

    Attributes:
        function: Takes the variables and the images [B, H, W, C] and returns float32[B, K]. It is
            pure, and it can be traced with a symbolic batch size, height and width. It has no loops
            over blocks and no recomputation.
        variables: Nested dictionaries of NumPy arrays, float32. They have no running statistics if
            BatchNorm is folded.
        image_shape: Height, width and channels of an image.
        input_dtype: Type of the images, see `InputType`.
        output: What the function returns, see `OutputType`.
        folded: Whether BatchNorm is folded into the convolutions.
        why_not_folded: Why it is not, although it was asked for. Empty otherwise.
    """

    function: Callable[[Any, jax.Array], jax.Array]
    variables: dict[str, Any]
    image_shape: tuple[int, int, int]
    input_dtype: InputType
    output: OutputType
    folded: bool
    why_not_folded: str = ""


def build_program(
    classifier: Classifier,
    *,
    input_dtype: InputType = "uint8",
    fold: bool = True,
    output: OutputType = "probabilities",
    by_platform: bool = False,
) -> Program:
    """Return the function that an export contains, and its variables.

    Args:
        classifier: The network with its variables and preprocessing. Its temperature is part of
            the probabilities.
        input_dtype: ``"uint8"`` takes images of the right size, as `Preprocessing.on_host` returns
            them. ``"float32"`` takes the input of the network, as `Classifier.preprocess` returns
            it.
        fold: Whether to fold BatchNorm into the preceding convolutions. A network of which this is
            impossible keeps its BatchNorm, see `Program.why_not_folded`.
        output: What the function returns.
        by_platform: Whether the function contains the fast formulation of each platform, between
            which JAX chooses when it lowers the function. Otherwise it consists of XLA's own
            convolutions and pooling for every platform, which other formats can translate.

    Raises:
        ValueError: The network has no head.
    """
    if not classifier.class_names:
        raise ValueError(
            "the network has no head and predicts no classes, so there is nothing to export"
        )
    model, variables, reason = classifier.model, classifier.variables, ""
    if fold:
        try:
            model, variables = fold_batch_norm(model, variables)
        except ValueError as error:
            reason = str(error)
    # Other formats have no loops over stacked parameters, and nothing is recomputed without
    # gradients.
    variables = unstack_blocks(variables)
    model = model.clone(scan=False, remat=False)
    preprocessing = classifier.preprocessing
    temperature = classifier.calibration.temperature
    setting = contextlib.nullcontext if by_platform else _one_formulation

    def compute(variables: Any, images: jax.Array) -> jax.Array:
        with setting():
            if input_dtype == "uint8":
                images = preprocessing.on_device(images)
            logits: Any = model.apply(variables, images, train=False)
            if output == "logits":
                return logits
            return jax.nn.softmax(logits if temperature == 1 else logits / temperature)

    height, width, channels = preprocessing.image_shape
    if input_dtype == "float32" and preprocessing.upsample_size is not None:
        height = width = preprocessing.upsample_size
    return Program(
        function=compute,
        variables=jax.tree.map(np.asarray, variables),
        image_shape=(height, width, channels),
        input_dtype=input_dtype,
        output=output,
        folded=fold and not reason,
        why_not_folded=reason,
    )


def _one_formulation() -> contextlib.AbstractContextManager[None]:
    return formulation("convolution")


def abstract_images(
    program: Program, *, batch: int | Literal["dynamic"] = "dynamic", any_size: bool = False
) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of a batch of images, for tracing the program.

    Args:
        program: The program that takes them.
        batch: Number of images. ``"dynamic"`` is the symbolic dimension ``b``.
        any_size: Whether height and width are the symbolic dimensions ``h`` and ``w``, and not
            those of `Program.image_shape`.
    """
    height, width, channels = program.image_shape
    sizes: list[Any] = ["h", "w"] if any_size else [height, width]
    names = ["b" if batch == "dynamic" else batch, *sizes, channels]
    shape = jax.export.symbolic_shape(", ".join(map(str, names)))
    return jax.ShapeDtypeStruct(shape, jnp.dtype(program.input_dtype))


def describe(
    classifier: Classifier,
    *,
    input_dtype: InputType = "uint8",
    output: OutputType = "probabilities",
) -> dict[str, Any]:
    """Return what travels with an export, as JSON values.

    Args:
        classifier: What is exported.
        input_dtype: As in `build_program`.
        output: As in `build_program`.

    Returns:
        A dictionary with

        - ``schema_version``: `SCHEMA_VERSION`;
        - ``class_names``: K names, in the order of the outputs;
        - ``preprocessing``: the fields of `Preprocessing`, among them ``image_size``,
          ``crop_fraction``, ``crop_mode``, ``interpolation``, ``mean``, ``std`` and ``channels``;
        - ``input``: the type and the layout of the images, and whether the program normalizes them;
        - ``output``: ``"probabilities"`` or ``"logits"``;
        - ``temperature``: the number that the logits are divided by before the softmax;
        - ``threshold``: the probability below which a prediction is uncertain, or None;
        - ``versions``: those of ``resnet_jax``, ``jax``, ``jaxlib`` and ``flax``;
        - ``date``: the date and time in UTC, as in ISO 8601.
    """
    from resnet_jax import __version__

    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    return {
        "schema_version": SCHEMA_VERSION,
        "class_names": list(classifier.class_names),
        "preprocessing": classifier.preprocessing.to_json(),
        "input": {
            "dtype": input_dtype,
            "layout": "NHWC",
            "normalized_by": "program" if input_dtype == "uint8" else "caller",
        },
        "output": output,
        "temperature": classifier.calibration.temperature,
        "threshold": classifier.calibration.threshold,
        "versions": {"resnet_jax": __version__, **versions},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
