"""Losses against PyTorch, torchvision and timm in float64, and what follows from the classes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import (
    ConfigError,
    FocalConfig,
    LossConfig,
    SigmoidConfig,
    SoftmaxConfig,
)
from resnet_jax.training.class_balance import class_weights, count_classes
from resnet_jax.training.objective import Objective, create_objective

WEIGHTS = (0.5, 2.0, 1.25, 0.1, 1.0)

CASES: dict[str, tuple[LossConfig, str]] = {
    "softmax": (SoftmaxConfig(), "labels"),
    "softmax smoothed": (SoftmaxConfig(0.1), "labels"),
    "softmax mixed": (SoftmaxConfig(0.1), "mixed"),
    "softmax weights": (SoftmaxConfig(0.1, class_weights=WEIGHTS), "labels"),
    "softmax mixed weights": (SoftmaxConfig(0.1, class_weights=WEIGHTS), "mixed"),
    "softmax balanced": (SoftmaxConfig(class_weights="balanced"), "labels"),
    "softmax effective": (
        SoftmaxConfig(class_weights="effective_number", effective_number_beta=0.99),
        "labels",
    ),
    "softmax adjusted": (SoftmaxConfig(logit_adjustment=1.5), "labels"),
    "sigmoid": (SigmoidConfig(), "labels"),
    "sigmoid smoothed sum": (SigmoidConfig(0.1, reduction="sum"), "labels"),
    "sigmoid mixed": (SigmoidConfig(0.1), "mixed"),
    "sigmoid threshold": (SigmoidConfig(0.1, target_threshold=0.2), "mixed"),
    "sigmoid weights": (SigmoidConfig(0.1, class_weights=WEIGHTS), "labels"),
    "focal sigmoid": (FocalConfig("sigmoid", alpha=0.25), "labels"),
    "focal sigmoid plain": (FocalConfig("sigmoid", gamma=1.5), "mixed"),
    "focal softmax": (FocalConfig(), "labels"),
    "focal softmax mixed": (FocalConfig(gamma=0.5), "mixed"),
    "focal softmax weights": (FocalConfig(class_weights=WEIGHTS), "labels"),
}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "losses_values.npz") as archive:
        return dict(archive)


def losses_and_gradient(
    objective: Objective, logits: np.ndarray, targets: Any
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of each example, and the gradient of their mean."""

    def mean(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = objective(logits, targets)
        return losses.mean(), losses

    gradient, losses = jax.grad(mean, has_aux=True)(jnp.asarray(logits))
    return losses, gradient


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_the_references(
    reference: dict[str, np.ndarray], name: str
) -> None:
    config, targets = CASES[name]
    with jax.enable_x64(True):
        objective = create_objective(config, 5, reference["counts"])
        losses, gradient = losses_and_gradient(
            objective, reference["logits"], jnp.asarray(reference[targets])
        )
    assert losses.dtype == np.float64
    np.testing.assert_allclose(losses, reference[f"{name} losses"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(gradient, reference[f"{name} gradient"], rtol=0, atol=1e-9)


def test_weighted_losses_are_averaged_over_the_images(reference: dict[str, np.ndarray]) -> None:
    objective = create_objective(SoftmaxConfig(class_weights=WEIGHTS), 5)
    labels = reference["labels"]
    of_labels, of_targets = (
        objective(jnp.asarray(reference["logits"]), jnp.asarray(targets)).mean()
        for targets in (labels, reference["mixed"])
    )
    np.testing.assert_allclose(of_targets, reference["torch mean mixed"], rtol=1e-5)
    # For labels, PyTorch divides by the sum of the weights instead.
    mean_weight = reference["weights"][labels].mean()
    np.testing.assert_allclose(of_labels / mean_weight, reference["torch mean labels"], rtol=1e-5)


def test_balanced_weights_have_a_mean_of_one_over_the_images() -> None:
    counts = np.array([50, 3, 20, 400, 7])
    weights = class_weights(SoftmaxConfig(class_weights="balanced"), 5, counts)
    assert weights is not None
    np.testing.assert_allclose(weights * counts, counts.sum() / 5)
    effective = SoftmaxConfig(class_weights="effective_number", effective_number_beta=0.0)
    np.testing.assert_allclose(class_weights(effective, 5, counts), np.ones(5))


@pytest.mark.parametrize("config", [FocalConfig(gamma=0.5), FocalConfig("sigmoid", gamma=0.5)])
def test_gradients_of_certain_predictions_are_finite(config: LossConfig) -> None:
    logits = np.array([[1000.0, -1000.0], [-1000.0, 1000.0]], np.float32)
    losses, gradient = losses_and_gradient(create_objective(config), logits, jnp.array([0, 0]))
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()
    assert losses[0] == 0


def test_weights_that_do_not_fit_the_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has 2 numbers, but the images have 3 classes"):
        create_objective(SoftmaxConfig(class_weights=(1.0, 2.0)), 3)
    with pytest.raises(ConfigError, match="no images of class b, c"):
        count_classes(np.array([0, 0, 3]), ["a", "b", "c", "d"])
