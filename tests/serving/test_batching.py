"""Batches: which items are computed together, and what happens to those that are not."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from resnet_jax.serving.batching import Batcher, ModelThread
from tests.serving.stub import run_alone


class Recorder:
    """A network that doubles numbers, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], int]] = []

    def __call__(self, items: Sequence[int], size: int) -> list[int]:
        """Return the results of a batch."""
        self.batches.append((list(items), size))
        if 13 in items:
            raise OverflowError("13 is too much")
        if 17 in items:
            return []
        return [2 * item for item in items]


def run(
    use: Callable[[Batcher[int, int]], Coroutine[Any, Any, Any]],
    sizes: Sequence[int] = (1, 2, 4),
    delay: float = 0.0,
) -> tuple[Any, list[tuple[list[int], int]]]:
    """Return what a function of a batcher returns, and the batches."""
    recorder = Recorder()

    async def main() -> Any:
        thread = ModelThread()
        batcher = Batcher(recorder, sizes, delay=delay, thread=thread)
        task = asyncio.create_task(batcher.serve())
        try:
            return await use(batcher)
        finally:
            task.cancel()
            thread.close()

    return run_alone(main()), recorder.batches


def test_items_that_arrive_together_are_computed_together() -> None:
    async def use(batcher: Batcher[int, int]) -> list[int]:
        return await asyncio.gather(*map(batcher, range(7)))

    results, batches = run(use)
    assert results == [0, 2, 4, 6, 8, 10, 12]
    # The second batch has three items in a program for four.
    assert batches == [([0, 1, 2, 3], 4), ([4, 5, 6], 4)]


def test_an_item_waits_for_others() -> None:
    async def use(batcher: Batcher[int, int]) -> list[int]:
        first = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.01)
        return [await batcher(2), await first]

    # The first item waits until the batch is full, for up to an hour.
    results, batches = run(use, sizes=(1, 2), delay=3600)
    assert results == [4, 2]
    assert batches == [([1, 2], 2)]


def test_an_item_does_not_wait_for_ever() -> None:
    async def use(batcher: Batcher[int, int]) -> int:
        return await batcher(5)

    assert run(use, delay=0.001) == (10, [([5], 1)])


def test_items_gather_while_a_batch_is_computed() -> None:
    async def use(batcher: Batcher[int, int]) -> list[int]:
        async with batcher._thread.turn:  # As if the network were busy.
            tasks = [asyncio.create_task(batcher(item)) for item in range(4)]
            await asyncio.sleep(0.05)
        return await asyncio.gather(*tasks)

    assert run(use)[1] == [([0, 1, 2, 3], 4)]


def test_an_item_without_a_caller_is_not_computed() -> None:
    async def use(batcher: Batcher[int, int]) -> int:
        async with batcher._thread.turn:
            left = asyncio.create_task(batcher(1))
            stays = asyncio.create_task(batcher(2))
            await asyncio.sleep(0.01)
            left.cancel()
        return await stays

    assert run(use) == (4, [([2], 1)])


def test_an_error_reaches_the_callers_of_its_batch_and_no_others() -> None:
    async def use(batcher: Batcher[int, int]) -> list[Any]:
        failed = await asyncio.gather(batcher(13), batcher(1), return_exceptions=True)
        return [*failed, await batcher(3)]

    (first, second, third), batches = run(use)
    assert isinstance(first, OverflowError)
    assert isinstance(second, OverflowError)
    assert third == 6
    assert batches == [([13, 1], 2), ([3], 1)]


def test_a_network_that_loses_results_does_not_stop_the_others() -> None:
    async def use(batcher: Batcher[int, int]) -> int:
        with pytest.raises(ValueError, match="a batch of 1 items has 0 results"):
            await batcher(17)
        return await batcher(3)

    assert run(use)[0] == 6


@pytest.mark.parametrize("sizes", [(3,), (1, 2, 3)])
def test_the_size_of_a_batch_is_one_of_the_given_ones(sizes: tuple[int, ...]) -> None:
    async def use(batcher: Batcher[int, int]) -> list[int]:
        return await asyncio.gather(*map(batcher, range(4)))

    _, batches = run(use, sizes=sizes)
    assert [size for _, size in batches] == [3, sizes[0]]
