"""The data set that ships with scikit-learn."""

import hashlib

import jax
import numpy as np
import pytest

from resnet_jax.config import DigitsConfig
from resnet_jax.data import Dataset, open_dataset


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset(DigitsConfig())


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_the_split_is_fixed_and_stratified(digits: Dataset) -> None:
    assert (len(digits.train), len(digits.evaluation)) == (1437, 360)
    assert digits.evaluation_split == "test"
    shares = np.bincount(digits.train.labels) / np.bincount(
        np.concatenate([digits.train.labels, digits.evaluation.labels])
    )
    np.testing.assert_allclose(shares, 0.8, atol=0.005)
    # Every published accuracy depends on the choice of test images, so it is pinned.
    assert hashlib.sha256(digits.evaluation.images.tobytes()).hexdigest()[:16] == "ac6ada28192bd51a"


def test_no_test_image_is_trained_on(digits: Dataset) -> None:
    assert not rows(digits.train.images) & rows(digits.evaluation.images)


def test_validation_leaves_the_test_images_alone(digits: Dataset) -> None:
    tuning = open_dataset(DigitsConfig(evaluate_on="validation"))
    assert tuning.evaluation_split == "validation"
    assert (len(tuning.train), len(tuning.evaluation)) == (1077, 360)
    used = rows(tuning.train.images) | rows(tuning.evaluation.images)
    assert used == rows(digits.train.images)


def test_preparation_keeps_the_image_and_normalises_it(digits: Dataset) -> None:
    same_size = open_dataset(DigitsConfig(image_size=8))
    images = digits.train.images
    prepared = np.asarray(jax.jit(same_size.prepare)(images))
    np.testing.assert_allclose(
        prepared, (images - images.mean()) / images.std(), atol=1e-5, rtol=1e-5
    )
    assert abs(prepared.mean()) < 1e-4
    assert abs(prepared.std() - 1) < 1e-4


def test_augmentation_changes_every_image_a_little(digits: Dataset) -> None:
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    augmented = np.asarray(jax.jit(digits.augment)(jax.random.key(0), images, labels)[0])
    prepared = np.asarray(digits.prepare(images))
    distances = np.abs(augmented - prepared).mean((1, 2, 3))
    assert augmented.shape == (64, 16, 16, 1)
    assert distances.min() > 0.01
    assert distances.mean() < 0.6
