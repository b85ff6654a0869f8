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


@pytest.mark.parametrize("name", ["resnet18", "resnetv2_18"])
def test_probabilities_and_heat_are_those_of_the_classifier(name: str) -> None:
    # BatchNorm of a pre-activation network cannot be folded.
    network = create_model(name, num_classes=3, width=8, stage_sizes=(1, 1, 1, 1))
    variables = random_variables(network, np.zeros((1, 32, 32, 3), np.float32))
    classifier = Classifier(
        network, variables, PREPROCESSING, ["a", "b", "c"], calibration=Calibration(2.0)
    )
    model = Model.from_classifier(classifier, "tiny")
    assert model.class_names == ("a", "b", "c")
    np.testing.assert_allclose(model.probabilities(IMAGES), classifier(IMAGES), rtol=1e-4)
    assert model.heat is not None
    expected = explain(network, variables, classifier.preprocess(IMAGES), np.array([2, 0]))
    for i, target in enumerate((2, 0)):
        heat = model.heat(IMAGES[i : i + 1], np.array([target], np.int32))
        np.testing.assert_allclose(heat[0], expected[i], atol=1e-4)


def test_a_network_without_a_head_is_refused() -> None:
    network = create_model("resnet18", num_classes=0, width=8, stage_sizes=(1, 1, 1, 1))
    variables = random_variables(network, np.zeros((1, 32, 32, 3), np.float32))
    classifier = Classifier(network, variables, PREPROCESSING, [])
    with pytest.raises(ValueError, match="has no head"):
        Model.from_classifier(classifier, "tiny")
