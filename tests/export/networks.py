"""Small classifiers for the tests of exports."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax import Classifier, Preprocessing, create_model, load_weights
from resnet_jax.inference import Calibration
from resnet_jax.models import ResNet
from resnet_jax.weights.dialects.torch import torch_name, torch_rules
from resnet_jax.weights.structure import structure
from tests.golden import golden
from tests.models.test_variants import torch_shape

CLASSES = ("cat", "dog", "fox")
PREPROCESSING = Preprocessing(
    image_size=32,
    crop_fraction=0.875,
    interpolation="pil_bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    channels=3,
)


def golden_variables(model: ResNet, channels: int = 3) -> dict[str, Any]:
    """Return variables that PyTorch's network of the same tensors can have, too."""
    rules = torch_rules(model)
    weights = {}
    for collection, tree in structure(model, channels).items():
        for path, leaf in _leaves(tree):
            name = torch_name([collection, *path], rules)
            weights[name] = golden.tensor(name, torch_shape(name, leaf.shape, rules))
    return load_weights(model, weights)


def _leaves(tree: Any) -> list[tuple[list[str], Any]]:
    if not isinstance(tree, dict):
        return [([], tree)]
    return [([key, *path], leaf) for key, value in tree.items() for path, leaf in _leaves(value)]


def classifier(
    name: str = "resnet18",
    *,
    preprocessing: Preprocessing = PREPROCESSING,
    class_names: Sequence[str] = CLASSES,
    temperature: float = 1.0,
    **overrides: Any,
) -> Classifier:
    """Return a classifier with golden weights.

    Args:
        name: Name of the network.
        preprocessing: Its preprocessing.
        class_names: Its classes.
        temperature: Its temperature.
        **overrides: Fields of the network.
    """
    if preprocessing.channels != 3:
        overrides["in_channels"] = preprocessing.channels
    model = create_model(name, num_classes=len(class_names), **overrides)
    return Classifier(
        model,
        golden_variables(model, preprocessing.channels),
        preprocessing,
        class_names,
        calibration=Calibration(temperature=temperature),
    )


def tiny(**options: Any) -> Classifier:
    """Return a ResNet-18 of 8 channels with one block in each stage."""
    return classifier(width=8, stage_sizes=(1, 1, 1, 1), **options)


def pixels(count: int, classifier: Classifier) -> np.ndarray:
    """Return images of noise, uint8[count, H, W, C]."""
    shape = (count, *classifier.preprocessing.image_shape)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def probabilities(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Return what a classifier predicts for images of `pixels`, which are not cropped again."""
    return classifier.probabilities(np.asarray(classifier.forward(images).logits))
