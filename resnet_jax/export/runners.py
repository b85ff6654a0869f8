"""Networks ready to run, whatever format they are in: for measuring their speed and accuracy."""

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnet_jax.export.program import build_program
from resnet_jax.export.stablehlo import Dimension, StableHLO, load
from resnet_jax.inference.classifier import Classifier
from resnet_jax.inference.onnx_runtime import OnnxModel


@dataclasses.dataclass(frozen=True, eq=False)
class Runner:
    """A network that can be called with a batch of images.

    Attributes:
        name: What the user named.
        kind: Format of the network, such as ``"StableHLO int8"``.
        run: Returns probabilities or logits, float32[B, K], when they have been computed.
        image_shape: Height, width and channels of the images. Where any size is possible, they are
            those of the preprocessing.
        any_size: Whether images may have any size.
        input_dtype: Type of the images, ``"uint8"`` or ``"float32"``.
        batch: Number of images of a batch.
        size: Size of the file, or of the arrays of a network without a file, in bytes.
    """

    name: str
    kind: str
    run: Callable[[np.ndarray], np.ndarray]
    image_shape: tuple[int, int, int]
    any_size: bool
    input_dtype: str
    batch: Dimension
    size: int


def open_runner(source: str) -> Runner:
    """Open an export, or anything that `Classifier.from_pretrained` accepts.

    A network that is no export runs as a function of `jax.jit`, with BatchNorm folded where
    possible, as in an export.

    Args:
        source: A ``.stablehlo`` or ``.onnx`` file, a run directory, or another source of a
            classifier.

    Raises:
        FileNotFoundError: There is no such file or directory.
        ValueError: It cannot be read.
        ImportError: A package that the format needs is not installed.
    """
    path = Path(source).expanduser()
    if path.suffix == ".onnx":
        return onnx_runner(OnnxModel(path), path, source)
    if path.suffix == ".stablehlo" or (path.is_file() and zipfile.is_zipfile(path)):
        return stablehlo_runner(load(path), source)
    return classifier_runner(Classifier.from_pretrained(source), source)


def classifier_runner(classifier: Classifier, name: str) -> Runner:
    """Return a classifier as a compiled function of images uint8[B, H, W, C]."""
    program = build_program(classifier, by_platform=True)
    compiled = jax.jit(program.function)
    variables = jax.device_put(program.variables)
    return Runner(
        name=name,
        kind="jax.jit",
        run=lambda images: np.asarray(compiled(variables, images)),
        image_shape=program.image_shape,
        any_size=True,
        input_dtype=program.input_dtype,
        batch="dynamic",
        size=sum(leaf.nbytes for leaf in jax.tree.leaves(program.variables)),
    )


def stablehlo_runner(export: StableHLO, name: str) -> Runner:
    """Return a StableHLO export that has been loaded."""
    facts: dict[str, Any] = export.metadata["program"]
    return Runner(
        name=name,
        kind="StableHLO int8" if facts["kernels"] == "int8" else "StableHLO",
        run=lambda images: np.asarray(export(images)),
        image_shape=_image_shape(facts["image_shape"], export.metadata),
        any_size="dynamic" in facts["image_shape"],
        input_dtype=export.metadata["input"]["dtype"],
        batch=facts["batch"],
        size=export.path.stat().st_size,
    )


def _image_shape(shape: list[Any], metadata: dict[str, Any]) -> tuple[int, int, int]:
    """Return a shape in which the sizes of the preprocessing stand for those that are free."""
    if "dynamic" not in shape:
        return shape[0], shape[1], shape[2]
    size = metadata["preprocessing"]["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    defaults = (height, width, metadata["preprocessing"]["channels"])
    found = [
        default if side == "dynamic" else int(side)
        for side, default in zip(shape, defaults, strict=True)
    ]
    return found[0], found[1], found[2]


def onnx_runner(model: OnnxModel, path: Path, name: str) -> Runner:
    """Return an ONNX export that onnxruntime has loaded.

    Raises:
        ValueError: This library did not write it, and its size is not known.
    """
    batch, height, width, channels = model.input_shape
    shape = ["dynamic" if side is None else side for side in (height, width, channels)]
    if "dynamic" in shape and "preprocessing" not in model.metadata:
        raise ValueError(f"{path}: the model says neither which size of images it takes")
    data = path.with_name(f"{path.name}.data")
    return Runner(
        name=name,
        kind="ONNX int8" if "quantization" in model.metadata else "ONNX",
        run=model,
        image_shape=_image_shape(shape, model.metadata),
        any_size=height is None,
        input_dtype=model.input_dtype.name,
        batch="dynamic" if batch is None else batch,
        size=path.stat().st_size + (data.stat().st_size if data.exists() else 0),
    )
