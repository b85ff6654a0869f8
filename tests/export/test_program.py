"""The program that every export contains computes what the classifier does."""

import dataclasses
from datetime import UTC, datetime

import jax
import numpy as np
import pytest

import resnet_jax
from resnet_jax import Classifier
from resnet_jax.export.int8 import dequantized_variables, quantize_program, quantized_variables
from resnet_jax.export.program import abstract_images, build_program, describe
from tests.export.networks import PREPROCESSING, classifier, pixels, probabilities, tiny


@pytest.mark.parametrize("fold", [True, False])
def test_pixels_become_probabilities_with_the_temperature(
    tiny_classifier: Classifier, fold: bool
) -> None:
    images = pixels(2, tiny_classifier)
    program = build_program(tiny_classifier, fold=fold)
    assert (program.folded, program.why_not_folded) == (fold, "")
    assert ("batch_stats" in program.variables) != fold
    assert (program.image_shape, program.input_dtype) == ((32, 32, 3), "uint8")
    found = jax.jit(program.function)(program.variables, images)
    np.testing.assert_allclose(found, probabilities(tiny_classifier, images), rtol=2e-5, atol=1e-6)


def test_the_input_of_the_network_becomes_logits(tiny_classifier: Classifier) -> None:
    images = pixels(2, tiny_classifier)
    program = build_program(tiny_classifier, input_dtype="float32", output="logits")
    found = jax.jit(program.function)(program.variables, tiny_classifier.preprocess(images))
    np.testing.assert_allclose(found, tiny_classifier.logits(images), rtol=2e-5, atol=1e-5)


def test_images_are_resampled_inside_if_they_are_pixels() -> None:
    preprocessing = dataclasses.replace(PREPROCESSING, image_size=20, upsample_size=32)
    resampling = tiny(preprocessing=preprocessing)
    assert build_program(resampling).image_shape == (20, 20, 3)
    assert build_program(resampling, input_dtype="float32").image_shape == (32, 32, 3)
    images = pixels(1, resampling)
    program = build_program(resampling)
    found = jax.jit(program.function)(program.variables, images)
    np.testing.assert_allclose(found, probabilities(resampling, images), rtol=2e-5, atol=1e-6)


def test_a_network_that_cannot_be_folded_keeps_its_normalization() -> None:
    grouped = classifier("resnet50_gn", width=32, stage_sizes=(1,))
    program = build_program(grouped)
    assert not program.folded
    assert program.why_not_folded.startswith("GroupNorm depends on the image")


def test_loops_and_recomputation_are_gone() -> None:
    looped = classifier("cifar_resnet20", stage_sizes=(5, 1, 1), width=4, scan=True, remat=True)
    program = build_program(looped, fold=False)
    assert "block5" in program.variables["params"]["stage1"]
    text = str(jax.make_jaxpr(program.function)(program.variables, pixels(1, looped)))
    assert "scan" not in text
    assert "remat" not in text
    assert "checkpoint" not in text


def test_a_network_without_head_is_refused() -> None:
    with pytest.raises(ValueError, match="the network has no head"):
        build_program(tiny(class_names=()))


@pytest.mark.parametrize("by_platform", [False, True])
def test_only_a_program_by_platform_has_formulations_for_cpus(
    tiny_classifier: Classifier, by_platform: bool
) -> None:
    program = build_program(tiny_classifier, by_platform=by_platform)
    images = abstract_images(program)
    assert str(images.shape[0]) == "b"
    jaxpr = str(jax.make_jaxpr(program.function)(program.variables, images))
    assert ("platform_index" in jaxpr) == by_platform


def test_the_description_says_how_to_use_an_export(tiny_classifier: Classifier) -> None:
    facts = describe(tiny_classifier, input_dtype="float32", output="logits")
    assert facts["class_names"] == ["cat", "dog", "fox"]
    assert facts["preprocessing"] == PREPROCESSING.to_json()
    assert facts["input"] == {"dtype": "float32", "layout": "NHWC", "normalized_by": "caller"}
    assert (facts["output"], facts["temperature"], facts["threshold"]) == ("logits", 1.5, None)
    assert facts["versions"]["resnet_jax"] == resnet_jax.__version__
    assert facts["versions"]["jax"] == jax.__version__
    age = datetime.now(UTC) - datetime.fromisoformat(facts["date"])
    assert 0 <= age.total_seconds() < 3600


def test_int8_is_within_half_a_step_of_each_output_channel(tiny_classifier: Classifier) -> None:
    program = build_program(tiny_classifier)
    quantized = quantized_variables(program.variables)
    kernel = program.variables["params"]["stage1"]["block1"]["conv1"]["kernel"]
    stored = quantized["params"]["stage1"]["block1"]["conv1"]["kernel"]
    assert stored["int8"].dtype == np.int8
    assert stored["scale"].shape == (1, 1, 1, kernel.shape[-1])
    np.testing.assert_allclose(
        stored["scale"].ravel() * 127, np.abs(kernel).max(axis=(0, 1, 2)), rtol=1e-6
    )
    restored = dequantized_variables(quantized)
    assert jax.tree.structure(restored) == jax.tree.structure(program.variables)
    error = restored["params"]["stage1"]["block1"]["conv1"]["kernel"] - kernel
    assert np.all(np.abs(error) <= 0.5001 * stored["scale"])
    # Everything else is unchanged.
    np.testing.assert_array_equal(
        restored["params"]["stem"]["norm"]["bias"],
        program.variables["params"]["stem"]["norm"]["bias"],
    )
    np.testing.assert_array_equal(
        quantize_program(program).variables["params"]["head"]["kernel"]["int8"],
        quantized["params"]["head"]["kernel"]["int8"],
    )


def test_a_channel_of_zeros_stays_zero() -> None:
    kernel = np.zeros((1, 1, 2, 2), np.float32)
    kernel[..., 1] = 3
    restored = dequantized_variables(quantized_variables({"kernel": kernel}))
    np.testing.assert_allclose(restored["kernel"], kernel, rtol=1e-6)
