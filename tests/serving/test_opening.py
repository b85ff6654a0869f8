"""Exports give what the classifier gives that they were made of."""

from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.export.onnx import write_onnx
from resnet_jax.export.program import abstract_images, build_program, describe
from resnet_jax.export.stablehlo import write_stablehlo
from resnet_jax.serving import Model
from resnet_jax.serving.opening import open_model
from tests.serving.stub import serving
from tests.serving.test_model import IMAGES, small_classifier


def test_an_onnx_file_of_logits_for_normalized_images(tmp_path: Path) -> None:
    classifier, file = small_classifier("resnet18"), tmp_path / "small.onnx"
    # The temperature is not part of logits, and the normalization not of float32 inputs.
    program = build_program(classifier, input_dtype="float32", output="logits")
    arguments = program.variables, abstract_images(program)
    metadata = describe(classifier, input_dtype="float32", output="logits")
    write_onnx(program.function, arguments, file, metadata=metadata)
    model = open_model(str(file), name="small")
    assert (model.platform, model.class_names) == ("onnxruntime", ("a", "b", "c"))
    assert model.preprocessing == classifier.preprocessing
    assert model.heat is None
    np.testing.assert_allclose(model.probabilities(IMAGES), classifier(IMAGES), rtol=1e-4)


def test_a_stablehlo_file_for_one_size_of_batch(tmp_path: Path) -> None:
    classifier, file = small_classifier("resnet18"), tmp_path / "small.stablehlo"
    program = build_program(classifier, by_platform=True)
    write_stablehlo(program, file, metadata=describe(classifier), batch=2, platforms=("cpu",))
    model = open_model(str(file), name="small")
    assert (model.platform, model.batch_size) == ("stablehlo", 2)
    expected = classifier(IMAGES)
    np.testing.assert_allclose(model.probabilities(IMAGES), expected, rtol=1e-4)
    # The server fills the batch up.
    with serving(model) as client:
        request = {
            "name": "images",
            "datatype": "UINT8",
            "shape": [1, 32, 32, 3],
            "data": IMAGES[1].ravel().tolist(),
        }
        answer = client.post("/v2/models/small/infer", json={"inputs": [request]}).json()
    np.testing.assert_allclose(answer["outputs"][0]["data"], expected[1], rtol=1e-4)


def test_an_export_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mean.onnx"
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    write_onnx(lambda images: images.mean(axis=(1, 2)), (images,), file)
    with pytest.raises(ValueError, match=r"mean\.onnx does not say what its classes are"):
        open_model(str(file), name="mean")
    for name in ("absent.onnx", "absent.stablehlo"):
        with pytest.raises(FileNotFoundError, match="there is no such file"):
            open_model(name, name="absent")


def test_onnxruntime_can_compute_a_classifier() -> None:
    classifier = small_classifier("resnet18")
    model = Model.from_classifier(classifier, "small", backend="onnxruntime")
    assert model.platform == "onnxruntime"
    np.testing.assert_allclose(model.probabilities(IMAGES), classifier(IMAGES), rtol=1e-4)
    assert model.heat is not None
