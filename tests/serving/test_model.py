"""The model of a classifier gives what the classifier gives."""

import numpy as np
import pytest

from resnet_jax import Classifier, Preprocessing, create_model
from resnet_jax.inference import Calibration
from resnet_jax.inference.explain import explain
from resnet_jax.serving import Model
from tests.variables import random_variables

PREPROCESSING = Preprocessing(32, 1.0, "pil_bilinear", (0.45,), (0.25,), 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def small_classifier(name: str) -> Classifier:
    network = create_model(name, num_classes=3, width=8, stage_sizes=(1, 1))
    variables = random_variables(network, np.zeros((1, 32, 32, 3), np.float32))
    calibration = Calibration(temperature=2.0)
    return Classifier(network, variables, PREPROCESSING, ["a", "b", "c"], calibration=calibration)


def test_probabilities_and_heat_are_those_of_the_classifier() -> None:
    ours = small_classifier("resnet18")
    model = Model.from_classifier(ours, "tiny")
    assert model.class_names == ("a", "b", "c")
    np.testing.assert_allclose(model.probabilities(IMAGES), ours(IMAGES), rtol=1e-4)
    assert model.heat is not None
    images = ours.preprocess(IMAGES[:1])
    expected = explain(ours.model, ours.variables, images, np.array([2]))
    heat = model.heat(IMAGES[:1], np.array([2], np.int32))
    np.testing.assert_allclose(heat, expected, atol=1e-4)


def test_a_network_without_batch_norm_to_fold_is_served_unchanged() -> None:
    ours = small_classifier("resnetv2_18")
    model = Model.from_classifier(ours, "tiny")
    np.testing.assert_array_equal(model.probabilities(IMAGES), ours(IMAGES))


def test_a_network_without_a_head_is_refused() -> None:
    network = create_model("resnet18", num_classes=0, width=8, stage_sizes=(1, 1, 1, 1))
    variables = random_variables(network, np.zeros((1, 32, 32, 3), np.float32))
    classifier = Classifier(network, variables, PREPROCESSING, [])
    with pytest.raises(ValueError, match="has no head"):
        Model.from_classifier(classifier, "tiny")
