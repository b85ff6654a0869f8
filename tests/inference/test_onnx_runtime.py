"""With onnxruntime, a classifier gives the results that it gives with JAX."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import Classifier, Preprocessing
from resnet_jax.inference import ModelSpec
from resnet_jax.inference import classifier as classifier_module
from resnet_jax.inference.onnx_runtime import OnnxModel
from tests.export.networks import classifier, golden_variables, pixels, tiny


@pytest.fixture(scope="module")
def both() -> tuple[Classifier, Classifier]:
    ours = tiny(temperature=1.5)
    return ours, ours.with_backend("onnxruntime")


def test_probabilities_features_and_logits_are_equal(both: tuple[Classifier, Classifier]) -> None:
    ours, theirs = both
    images = list(pixels(3, ours))
    np.testing.assert_allclose(theirs(images), ours(images), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(theirs.logits(images), ours.logits(images), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(theirs.embed(images), ours.embed(images), rtol=1e-5, atol=1e-5)
    assert theirs.predict(images)[0][0].class_name == ours.predict(images)[0][0].class_name
    assert theirs([]).shape == (0, 3)


def test_a_run_is_loaded_with_one_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network resamples its images on the device, as that of the digits does."""
    preprocessing = Preprocessing(8, 1.0, "linear", (0.3,), (0.4,), 1, upsample_size=12)
    fields = {"stage_sizes": [1, 1, 1], "width": 4, "in_channels": 1}
    names = ("0", "1", "2")
    spec = ModelSpec("cifar_resnet20", fields, 3, names, preprocessing, "0")
    variables = golden_variables(spec.create(), channels=1)
    monkeypatch.setattr(classifier_module, "read_run", lambda _: (spec, variables))
    ours, theirs = (Classifier.load(tmp_path, backend=name) for name in ("jax", "onnxruntime"))
    images = pixels(3, ours)
    np.testing.assert_allclose(theirs(images), ours(images), rtol=1e-5, atol=1e-6)


def test_the_original_keeps_its_backend(both: tuple[Classifier, Classifier]) -> None:
    ours, theirs = both
    images = pixels(1, ours)
    back = theirs.with_backend("jax")
    assert back.logits(images).tobytes() == ours.logits(images).tobytes()
    # Explanations need gradients, which onnxruntime does not compute.
    assert theirs.explain(images)[0].class_name == ours.explain(images)[0].class_name


def test_a_network_without_batch_norm_in_half_precision_is_computed_in_full() -> None:
    fields = {"width": 32, "stage_sizes": (1,)}
    full = classifier("resnetv2_50d_gn", **fields)
    half = Classifier(
        full.model.clone(dtype=jnp.bfloat16), full.variables, full.preprocessing, full.class_names
    )
    images = pixels(2, full)
    theirs = half.with_backend("onnxruntime")
    np.testing.assert_allclose(theirs(images), full(images), rtol=1e-5, atol=1e-6)


def test_a_network_without_a_head_gives_features() -> None:
    headless = classifier("cifar_resnet20", class_names=(), width=4, stage_sizes=(1,))
    theirs = headless.with_backend("onnxruntime")
    images = pixels(2, headless)
    np.testing.assert_allclose(theirs.embed(images), headless.embed(images), rtol=1e-5, atol=1e-5)


def test_an_unknown_backend_is_refused(both: tuple[Classifier, Classifier]) -> None:
    with pytest.raises(ValueError, match="backend must be one of jax, onnxruntime"):
        both[0].with_backend("tensorrt")  # type: ignore[arg-type]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(
    both: tuple[Classifier, Classifier], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("resnet_jax.export.onnx")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'resnet-linen\[export\]'") as error:
        both[0].with_backend("onnxruntime")
    assert error.value.name == package


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        OnnxModel(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match=r"text\.onnx: onnxruntime cannot use it"):
        OnnxModel(tmp_path / "text.onnx")
