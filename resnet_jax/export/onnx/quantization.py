"""Static quantization of ONNX models to 8-bit integers, as onnxruntime does it.

The method is that of Jacob et al. 2018 (https://arxiv.org/abs/1712.05877). A float is
``scale * (integer - zero_point)``. Weights have a scale for each output channel and integers from
-128 to 127. Activations have one scale for each tensor, which follows from the range of its values
on calibration images, and integers from 0 to 255.
"""

import contextlib
import io
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx

from resnet_jax.export.onnx.writing import (
    check_new,
    metadata_of,
    needs_two_files,
    save_model,
)

Method = Literal["minmax", "entropy", "percentile"]
"""How the range of a tensor follows from its values on the calibration images: all of them, the
range that loses least information (Migacz 2017), or 99.999 % of them."""

QUANTIZATION = "quantization"
"""The entry of the metadata that describes how a model was quantized, as JSON."""

# Operators of which inputs and outputs are integers. Normalization, softmax and the gates of
# attention are computed in float32.
_OPERATORS = (
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Gemm",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# Instructions of x86 processors that add products of integers without saturation.
_EXACT_SUMS = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"}


class Quantization(NamedTuple):
    """What quantization has changed.

    Attributes:
        bytes_before: Size of the model in bytes.
        bytes_after: The same after quantization.
        accuracy_before: Fraction of the evaluation images whose most probable class is right, 0 to
            1. None without evaluation images.
        accuracy_after: The same after quantization.
        agreement: Fraction of the evaluation images whose most probable class is the same before
            and after quantization, or None.
        reduce_range: Whether weights have 7 bits.
    """

    bytes_before: int
    bytes_after: int
    accuracy_before: float | None
    accuracy_after: float | None
    agreement: float | None
    reduce_range: bool


def quantize_onnx(
    source: str | os.PathLike[str],
    file: str | os.PathLike[str],
    calibration: Iterable[np.ndarray],
    *,
    evaluation: Iterable[tuple[np.ndarray, np.ndarray]] | None = None,
    method: Method = "minmax",
    reduce_range: bool | None = None,
    overwrite: bool = False,
) -> Quantization:
    """Write a model whose convolutions and matrix products compute with 8-bit integers.

    BatchNorm should be folded into the convolutions before, see
    `resnet_jax.inference.fold_batch_norm`.

    Args:
        source: A model that `write_onnx` wrote, in float32.
        file: The new file. It is written completely or not at all. The metadata of the source are
            kept, and the entry `QUANTIZATION` is added.
        calibration: Batches of images, as the model takes them, from which the ranges of the
            activations are measured. A few hundred images of the training set are usual.
        evaluation: Batches of images with their labels int[B], on which the accuracies are
            measured.
        method: How ranges are measured.
        reduce_range: Whether to use only 7 bits of the weights. Processors without VNNI (Intel
            before 2019, AMD before 2022) add pairs of products in 16 bits, which saturate with 8
            bits. None uses 7 bits if this computer's processor needs it.
        overwrite: Whether to replace a file that exists.

    Raises:
        FileExistsError: The file exists and is not to be replaced.
        ValueError: There are no calibration images, the method is unknown, or the model is
            quantized already.
        ImportError: onnxruntime is not installed.
    """
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, but it is {method!r}")
    source, file = Path(source), check_new(file, overwrite=overwrite)
    if reduce_range is None:
        reduce_range = sums_saturate()
    model = onnx.load(str(source))
    metadata = metadata_of(model)
    if QUANTIZATION in metadata:
        raise ValueError(f"{source}: the model is quantized already")
    images: Any = _Calibration(model, calibration)

    # Folding and constants are done, which the library would ask for.
    add_pre_process_metadata(model)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as directory:
        quantized = Path(directory) / file.name
        # The library prints how it finds the ranges.
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                model,
                quantized,
                images,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_before_first_convolution(model),
                use_external_data_format=needs_two_files(model),
                calibrate_method=methods[method],
                # Logits and gates keep their full precision.
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
            )
        result = onnx.load(str(quantized))
    settings = {
        "activations": "uint8",
        "weights": "int8",
        "per_channel": True,
        "reduce_range": reduce_range,
        "method": method,
        "calibration_images": images.count,
    }
    onnx.helper.set_model_props(result, metadata | {QUANTIZATION: json.dumps(settings)})
    save_model(result, file)

    before = after = agreement = None
    if evaluation is not None:
        before, after, agreement = _accuracies(source, file, evaluation)
    return Quantization(
        _size(source), _size(file), before, after, agreement, reduce_range=reduce_range
    )


def sums_saturate() -> bool:
    """Return whether sums of 8-bit products may saturate on this computer's processor.

    They do on x86 processors without VNNI or AMX. If the system does not tell, the answer is True,
    with which the results are right everywhere.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True
    return _EXACT_SUMS.isdisjoint(flags)


class _Calibration:
    """Batches of images as onnxruntime reads them: a ``CalibrationDataReader``.

    Attributes:
        count: Number of images that have been read.
    """

    def __init__(self, model: onnx.ModelProto, batches: Iterable[np.ndarray]) -> None:
        [inputs] = model.graph.input
        self.count = 0
        self._name = inputs.name
        first = next(batches := iter(batches), None)
        if first is None:
            raise ValueError("calibration needs images, but there are none")
        self._batches = itertools.chain([first], batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        self.count += len(batch)
        return {self._name: np.asarray(batch)}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self.get_next, None)  # type: ignore[arg-type]


def _before_first_convolution(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that prepare the images."""
    nodes = itertools.takewhile(lambda node: node.op_type != "Conv", model.graph.node)
    return [node.name for node in nodes]


def _accuracies(
    source: Path, file: Path, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, float, float]:
    """Return the accuracy of both models, and how often they agree."""
    import onnxruntime

    sessions = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (source, file)
    ]
    name = sessions[0].get_inputs()[0].name
    hits = np.zeros(3)
    total = 0
    for images, labels in batches:
        inputs = {name: np.asarray(images)}
        outputs: list[Any] = [session.run(None, inputs)[0] for session in sessions]
        before, after = (np.argmax(output, axis=-1) for output in outputs)
        hits += [np.sum(before == labels), np.sum(after == labels), np.sum(before == after)]
        total += len(labels)
    if not total:
        raise ValueError("evaluation needs images, but there are none")
    before, after, agreement = (hits / total).tolist()
    return before, after, agreement


def _size(file: Path) -> int:
    """Return the size of a model in bytes, with the weights beside it."""
    data = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (data.stat().st_size if data.exists() else 0)
