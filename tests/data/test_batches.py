"""Which examples come when."""

import itertools

import numpy as np
import pytest

from resnet_jax.data import ArraySplit, Batch


@pytest.fixture
def split() -> ArraySplit:
    """23 examples, told apart by their labels."""
    labels = np.arange(23, dtype=np.int32)
    images = np.tile(labels.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1))
    return ArraySplit(images, labels)


def take(split: ArraySplit, count: int, *, start_step: int = 0, seed: int = 0) -> list[Batch]:
    batches = split.train_batches(5, seed=seed, start_step=start_step)
    return list(itertools.islice(batches, count))


def test_every_example_comes_once_an_epoch(split: ArraySplit) -> None:
    labels = np.concatenate([batch.label for batch in take(split, 23)])
    epochs = labels.reshape(5, 23)
    for epoch in epochs:
        assert sorted(epoch) == list(range(23))
    assert len({tuple(epoch) for epoch in epochs}) == 5, "each epoch has an order of its own"


def test_images_go_with_their_labels(split: ArraySplit) -> None:
    for batch in take(split, 10):
        np.testing.assert_array_equal(batch.image[:, 0, 0, 0], batch.label)
        assert batch.mask.all()


@pytest.mark.parametrize("start_step", [1, 4, 5, 23, 24])
def test_starting_late_gives_the_same_batches(split: ArraySplit, start_step: int) -> None:
    for late, straight in zip(
        take(split, 6, start_step=start_step), take(split, 30)[start_step:], strict=False
    ):
        np.testing.assert_array_equal(late.label, straight.label)


def test_a_late_start_costs_nothing(split: ArraySplit) -> None:
    (batch,) = take(split, 1, start_step=10**12)
    assert len(batch.label) == 5


def test_the_seed_decides_the_order(split: ArraySplit) -> None:
    first, same, other = (
        np.concatenate([batch.label for batch in take(split, 5, seed=seed)]) for seed in (0, 0, 1)
    )
    assert (first == same).all()
    assert (first != other).any()


def test_a_batch_may_be_larger_than_the_split(split: ArraySplit) -> None:
    (batch,) = itertools.islice(split.train_batches(50, seed=0, start_step=0), 1)
    assert sorted(np.bincount(batch.label, minlength=23)) == [2] * 19 + [3] * 4


@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
def test_evaluation_covers_the_split_once_and_in_order(split: ArraySplit, batch_size: int) -> None:
    batches = list(split.eval_batches(batch_size))
    assert {batch.image.shape for batch in batches} == {(batch_size, 2, 2, 1)}
    labels = np.concatenate([batch.label[batch.mask] for batch in batches])
    np.testing.assert_array_equal(labels, split.labels)
