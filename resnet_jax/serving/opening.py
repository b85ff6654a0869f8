"""Models from files: exports, and everything that is a classifier."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.export import stablehlo
from resnet_jax.inference import Classifier
from resnet_jax.inference.classifier import Backend
from resnet_jax.inference.measures import softmax
from resnet_jax.inference.onnx_runtime import OnnxModel
from resnet_jax.serving.model import Model


def open_model(
    source: str, network: str | None = None, *, name: str, backend: Backend = "jax"
) -> Model:
    """Return a model that is ready to be served.

    Args:
        source: An export ``*.onnx`` or ``*.stablehlo`` of this library, or a source of
            `Classifier.from_pretrained`.
        network: Name of the network, for weights that do not say it.
        name: Name of the model in addresses and answers.
        backend: What computes a network that is not exported, see `Classifier.with_backend`.

    Raises:
        FileNotFoundError: There is no such file or directory.
        ValueError: It cannot be read, is an export that lacks what the server needs, or predicts no
            classes.
        ImportError: A package that the format or the backend needs is not installed.
    """
    path = Path(source).expanduser()
    if path.suffix == ".onnx":
        onnx = OnnxModel(path)
        return _exported(name, "onnxruntime", source, onnx.metadata, onnx, onnx.input_shape[0])
    if path.suffix == ".stablehlo":
        program = stablehlo.load(path)
        batch = program.metadata["program"]["batch"]
        batch_size = None if batch == "dynamic" else batch

        def run(images: np.ndarray) -> np.ndarray:
            return np.asarray(program(images))

        return _exported(name, "stablehlo", source, program.metadata, run, batch_size)
    classifier = Classifier.from_pretrained(source, network)
    return Model.from_classifier(classifier, name, backend=backend)


def _exported(
    name: str,
    platform: str,
    source: str,
    metadata: Mapping[str, Any],
    run: Callable[[np.ndarray], np.ndarray],
    batch_size: int | None,
) -> Model:
    """Return the model of an export.

    Args:
        name: Name of the model.
        platform: What runs it.
        source: The file, for messages.
        metadata: What `resnet_jax.export.program.describe` has written into it.
        run: From images [B, H, W, C] of the export's type to its output, float32[B, K].
        batch_size: Its only size B, or None.
    """
    try:
        preprocessing = Preprocessing.from_json(metadata["preprocessing"])
        class_names = tuple(metadata["class_names"])
        dtype, output = metadata["input"]["dtype"], metadata["output"]
        temperature = np.float32(metadata["temperature"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{source} does not say what its classes are and how images are prepared; write it "
            "with resnet-jax export, or serve the run"
        ) from None
    normalize = jax.jit(preprocessing.on_device)

    def probabilities(images: np.ndarray) -> np.ndarray:
        outputs = run(np.asarray(normalize(images)) if dtype == "float32" else images)
        return outputs if output == "probabilities" else softmax(outputs / temperature)

    return Model(name, platform, class_names, preprocessing, probabilities, batch_size=batch_size)
