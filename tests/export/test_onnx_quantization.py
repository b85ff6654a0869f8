"""Quantized models are small, classify as before, and say how they were made."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from resnet_jax import Classifier
from resnet_jax.export.onnx import quantization, quantize_onnx, write_onnx
from resnet_jax.export.program import abstract_images, build_program
from resnet_jax.inference.onnx_runtime import OnnxModel
from tests.comparison import deviation
from tests.export.networks import pixels


@pytest.fixture(scope="module")
def onnx_file(tiny_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    program = build_program(tiny_classifier, output="logits")
    write_onnx(
        program.function,
        (program.variables, abstract_images(program)),
        file,
        metadata={"class_names": list(tiny_classifier.class_names)},
        output_name="logits",
    )
    return file


def test_integers_classify_as_floats_do(
    onnx_file: Path, tiny_classifier: Classifier, tmp_path: Path
) -> None:
    images = pixels(24, tiny_classifier)
    floats = OnnxModel(onnx_file)
    labels = floats(images).argmax(axis=-1)
    labels[0] = (labels[0] + 1) % 3
    file = tmp_path / "int8.onnx"
    result = quantize_onnx(
        onnx_file, file, [images[:8], images[8:16]], evaluation=[(images, labels)]
    )
    integers = OnnxModel(file)
    assert deviation(integers(images), floats(images)) < 0.1
    assert result.accuracy_before == 23 / 24
    assert result.accuracy_after is not None
    assert result.agreement == np.mean(integers(images).argmax(-1) == floats(images).argmax(-1))
    assert result.agreement > 0.8
    assert (result.bytes_before, result.bytes_after) == (
        onnx_file.stat().st_size,
        file.stat().st_size,
    )
    assert integers.metadata["class_names"] == ["cat", "dog", "fox"]
    assert integers.metadata["quantization"] == {
        "activations": "uint8",
        "weights": "int8",
        "per_channel": True,
        "reduce_range": result.reduce_range,
        "method": "minmax",
        "calibration_images": 16,
    }


def test_every_convolution_computes_with_integers(
    onnx_file: Path, tiny_classifier: Classifier, tmp_path: Path
) -> None:
    file = tmp_path / "int8.onnx"
    quantize_onnx(onnx_file, file, [pixels(4, tiny_classifier)], reduce_range=True)
    model = onnx.load(file)
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 12
    for node in convolutions:
        image, kernel = (producers[name] for name in node.input[:2])
        assert image.op_type == kernel.op_type == "DequantizeLinear"
        weights, scales = (constants[name] for name in kernel.input[:2])
        assert weights.dtype == np.int8
        assert scales.shape == weights.shape[:1]
        # Seven bits.
        assert np.abs(weights).max() <= 64
    assert not any(
        x.data_type == onnx.TensorProto.FLOAT
        for x in model.graph.initializer
        if x.dims and max(x.dims) > 64
    )


def test_what_cannot_be_quantized_is_refused(
    onnx_file: Path, tiny_classifier: Classifier, tmp_path: Path
) -> None:
    images = pixels(2, tiny_classifier)
    with pytest.raises(ValueError, match="calibration needs images, but there are none"):
        quantize_onnx(onnx_file, tmp_path / "none.onnx", [])
    with pytest.raises(FileExistsError, match="the file exists already"):
        quantize_onnx(onnx_file, onnx_file, [images])
    with pytest.raises(ValueError, match="method must be one of minmax, entropy, percentile"):
        quantize_onnx(onnx_file, tmp_path / "none.onnx", [images], method="mean")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("machine", "flags", "saturate"),
    [
        ("x86_64", "flags : fpu avx2", True),
        ("x86_64", "flags : fpu avx2 avx512_vnni", False),
        ("AMD64", None, True),
        ("arm64", None, False),
    ],
)
def test_seven_bits_are_used_where_sums_saturate(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None, saturate: bool
) -> None:
    def read(self: Path) -> str:
        if flags is None:
            raise FileNotFoundError(self)
        return flags

    monkeypatch.setattr(quantization.platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", read)
    assert quantization.sums_saturate() == saturate
