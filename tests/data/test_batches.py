"""The order of the examples in batches."""

import itertools

import jax
import numpy as np
import pytest

from resnet_jax.data import ArraySplit, Batch, Selection


@pytest.fixture
def split() -> ArraySplit:
    """A split of 23 examples with distinct labels."""
    labels = np.arange(23, dtype=np.int32)
    images = np.tile(labels.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1))
    return ArraySplit(images, labels)


_fetch = jax.jit(ArraySplit.fetch, static_argnums=0)


def fetch(split: ArraySplit, drawn: Selection) -> Batch[np.ndarray]:
    """Fetch a batch from arrays on the device, as the jitted step does."""
    return jax.device_get(_fetch(split, split.resident, drawn))


def take(split: ArraySplit, count: int, **options: int) -> list[Batch[np.ndarray]]:
    batches = split.train_batches(5, **{"seed": 0, "start_step": 0, **options})
    return [fetch(split, drawn) for drawn in itertools.islice(batches, count)]


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
    (drawn,) = itertools.islice(split.train_batches(50, seed=0, start_step=0), 1)
    assert sorted(np.bincount(drawn.index, minlength=23)) == [2] * 19 + [3] * 4


@pytest.mark.parametrize("processes", [2, 3])
def test_the_parts_of_processes_make_up_the_batch(split: ArraySplit, processes: int) -> None:
    def drawn(**part: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        train = split.train_batches(12, seed=0, start_step=7, **part)
        evaluation = split.eval_batches(12, **part)
        return (
            [selection.index for selection in itertools.islice(train, 5)],
            [np.where(selection.mask, selection.index, -1) for selection in evaluation],
        )

    parts = [drawn(process_index=i, process_count=processes) for i in range(processes)]
    for whole, *pieces in zip(drawn(), *parts, strict=True):
        together = [np.concatenate(step) for step in zip(*pieces, strict=True)]
        np.testing.assert_array_equal(together, whole)


@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
def test_evaluation_covers_the_split_once_and_in_order(split: ArraySplit, batch_size: int) -> None:
    batches = [fetch(split, drawn) for drawn in split.eval_batches(batch_size)]
    assert {batch.image.shape for batch in batches} == {(batch_size, 2, 2, 1)}
    labels = np.concatenate([batch.label[batch.mask] for batch in batches])
    np.testing.assert_array_equal(labels, split.labels)
