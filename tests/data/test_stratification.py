"""Our split and our reading of the digits are those of scikit-learn."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from resnet_jax.config import ArraysConfig, DigitsConfig
from resnet_jax.data import open_dataset
from resnet_jax.data.stratification import stratified_split


@pytest.mark.parametrize("size", [4, 10, 37, 96])
@pytest.mark.parametrize("seed", range(4))
def test_the_indices_and_their_order_are_those_of_scikit_learn(size: int, seed: int) -> None:
    # Classes of equal sizes have equal remainders, so that ties are broken at random.
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(4), [20, 20, 20, 40]))
    kept, held_out = train_test_split(
        np.arange(100), test_size=size, stratify=labels, random_state=seed
    )
    ours = stratified_split(labels, size, seed=seed)
    np.testing.assert_array_equal(ours[0], kept)
    np.testing.assert_array_equal(ours[1], held_out)


def test_the_digits_are_those_of_scikit_learn() -> None:
    data = load_digits()

    def hold_out(indices: np.ndarray) -> list[np.ndarray]:
        labels = data.target[indices]
        return train_test_split(indices, test_size=360, stratify=labels, random_state=0)

    train, _ = hold_out(np.arange(len(data.target)))
    train, validation = hold_out(train)
    ours = open_dataset(DigitsConfig(evaluate_on="validation"))
    levels = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    for split, indices in ((ours.train, train), (ours.evaluation, validation)):
        np.testing.assert_array_equal(split.images, levels[indices])
        np.testing.assert_array_equal(split.labels, data.target[indices])
    assert ours.class_names == tuple(map(str, data.target_names))


@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3])
def test_validation_images_of_arrays_are_those_of_scikit_learn(share: float) -> None:
    # There is no image of class 2.
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 3], [17, 20, 43]))
    images = np.arange(80, dtype=np.uint8)[:, None, None]
    config = ArraysConfig(evaluation_split="validation", validation_share=share)
    ours = open_dataset(config, {"x_train": images, "y_train": labels})
    parts = train_test_split(np.arange(80), test_size=share, stratify=labels, random_state=0)
    for split, expected in zip((ours.train, ours.evaluation), parts, strict=True):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], np.sort(expected))
