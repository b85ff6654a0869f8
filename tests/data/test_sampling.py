"""Which examples an epoch visits: shares of the classes, shortened epochs, alternating flips."""

import itertools

import numpy as np
import pytest

from resnet_jax.config import SamplingConfig
from resnet_jax.config.sampling import ClassSampling
from resnet_jax.data import ArraySplit, DataError
from resnet_jax.data.sampling import Sampling
from tests.data.test_batches import fetch

COUNTS = (70, 4, 24, 1)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS)).astype(np.int32)


def sampling(classes: ClassSampling) -> Sampling:
    return Sampling(SamplingConfig(classes), len(LABELS), LABELS)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ("balanced", [25, 25, 25, 24]),
        # 99 times 8.367, 2, 4.899 and 1, divided by their sum.
        ("square_root", [51, 12, 30, 6]),
    ],
)
def test_classes_have_their_shares_and_their_images_the_same_number_of_visits(
    classes: ClassSampling, expected: list[int]
) -> None:
    for epoch in range(3):
        order = sampling(classes).epoch(5, epoch)
        assert np.bincount(LABELS[order]).tolist() == expected
        visits = np.bincount(order, minlength=len(LABELS))
        for examples in (np.flatnonzero(label == LABELS) for label in range(4)):
            assert np.ptp(visits[examples]) <= 1


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    balanced = sampling("balanced")
    orders = {tuple(balanced.epoch(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    again = sampling("balanced").epoch(1, 2)
    np.testing.assert_array_equal(again, balanced.epoch(1, 2))


def split(**fields: float | SamplingConfig) -> ArraySplit:
    """Return images of two columns, which are not symmetrical."""
    numbers = np.arange(len(LABELS), dtype=np.uint8)
    images = np.stack([numbers, numbers + 100], axis=1)[:, None, :, None]
    return ArraySplit(images, LABELS, **fields)  # pyrefly: ignore


@pytest.mark.parametrize("start_step", [0, 3, 10**10])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_batches_depend_on_seed_and_step_alone(start_step: int, processes: int) -> None:
    balanced = split(sampling_config=SamplingConfig("balanced", epoch_multiple=10))
    parts = [
        next(
            balanced.train_batches(
                40, seed=2, start_step=start_step, process_index=part, process_count=processes
            )
        ).index
        for part in range(processes)
    ]
    # Epochs of 90 examples follow each other.
    positions = np.arange(start_step * 40, start_step * 40 + 40)
    expected = [balanced.sampling.epoch(2, p // 90)[p % 90] for p in positions]
    np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize(("multiple", "repeats"), [(16, 1), (16, 3), (32, 4)])
def test_shortened_epochs_are_those_of_repeated_augmentation(multiple: int, repeats: int) -> None:
    order = np.random.default_rng((7, 1)).permutation(len(LABELS))
    shortened = Sampling(SamplingConfig(epoch_multiple=multiple), len(LABELS))
    ours = shortened.epoch(7, 1)[np.arange(shortened.epoch_size) // repeats]
    # torchvision's RASampler and timm's RepeatAugSampler, with one process and a multiple of 256.
    repeated = np.repeat(order, repeats)
    np.testing.assert_array_equal(ours, repeated[: len(LABELS) // multiple * multiple])


def test_an_epoch_that_would_be_empty_is_refused() -> None:
    with pytest.raises(DataError, match="epoch_multiple is 100, but there are only 99"):
        Sampling(SamplingConfig(epoch_multiple=100), 99)


def test_alternating_flips_show_both_sides_in_two_epochs() -> None:
    alternating = split(alternating_flip=0.5)
    drawn = itertools.islice(alternating.train_batches(99, seed=0, start_step=0), 4)
    epochs = []
    for selection in drawn:
        batch = fetch(alternating, selection)
        mirrored = batch.image[:, 0, 0, 0] >= 100
        np.testing.assert_array_equal(batch.image[:, 0].min((1, 2)), selection.index)
        epochs.append(mirrored[np.argsort(selection.index)])
    assert 25 < epochs[0].sum() < 75
    np.testing.assert_array_equal(epochs[1], ~epochs[0])
    np.testing.assert_array_equal(epochs[2], epochs[0])
    np.testing.assert_array_equal(epochs[3], epochs[1])


def test_alternating_flips_leave_evaluation_alone() -> None:
    alternating = split(alternating_flip=1.0)
    for selection in alternating.eval_batches(50):
        assert not fetch(alternating, selection).image[:, 0, 0, 0][selection.mask].max() >= 100
