"""Batches come in order, ahead of time, and no thread outlives its use."""

import itertools
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.sharding import batch_sharded, make_mesh


def numbered(drawn: list[int], *, count: int = 10**9) -> Iterator[np.ndarray]:
    """Yield batches that hold their number. Record each draw, and the end as -1."""
    try:
        for number in range(count):
            drawn.append(number)
            yield np.full(8, number)
    finally:
        drawn.append(-1)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_batches_come_in_order_and_on_the_devices() -> None:
    mesh, drawn = make_mesh(), list[int]()
    with Prefetch(numbered(drawn, count=7), mesh) as batches:
        taken = list(batches)
        assert list(batches) == [], "the end stays the end"
    assert [batch[0] for batch in taken] == list(range(7))
    assert {batch.sharding for batch in taken} == {batch_sharded(mesh)}
    assert isinstance(taken[0], jax.Array)


def test_no_more_than_two_are_made_ahead_and_none_is_left_running() -> None:
    drawn = list[int]()
    with Prefetch(numbered(drawn), make_mesh()) as batches:
        for _ in itertools.islice(batches, 3):
            pass
        deadline = time.monotonic() + 60
        while len(drawn) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert drawn == [0, 1, 2, 3, 4]
        assert threads()
    assert drawn[-1] == -1, "the iterator is closed"
    assert not threads()


def test_an_error_comes_when_its_batch_is_due_and_ends_the_thread() -> None:
    def failing() -> Iterator[np.ndarray]:
        yield np.zeros(8)
        raise OSError("no such file")

    with Prefetch(failing(), make_mesh()) as batches:
        assert next(batches).sum() == 0
        with pytest.raises(OSError, match="no such file"):
            next(batches)
    assert not threads()
