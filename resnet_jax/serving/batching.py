"""Batches of items from many requests, which one thread computes."""

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Observe = Callable[[int, float], None]
"""Function that is told the number of items of a batch and the seconds that it took."""


class ModelThread:
    """The thread in which the network runs.

    Attributes:
        turn: Lock of the batcher whose batch is computed. The items of the others wait, so that
            their batches can still grow.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def __call__(self, function: Callable[[], Result]) -> Result:
        """Return the result of a function that is called in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def close(self) -> None:
        """Wait for the function that is running, and end the thread."""
        self._executor.shutdown(cancel_futures=True)


class _Waiting(NamedTuple, Generic[Item, Result]):
    item: Item
    result: "asyncio.Future[Result]"
    arrived: float


class Batcher(Generic[Item, Result]):
    """Items that are computed together if they arrive within a few milliseconds.

    A batch begins when the thread is free and the oldest item has waited for ``delay`` seconds, or
    when the batch is full.  Under load, items gather while the previous batch is computed, and
    nothing waits for longer than that.

    Everything but ``run`` happens on the event loop, so there are no locks.

    Args:
        run: From some items and the size of their batch to one result for each item. It pads the
            batch to the size, because a program is compiled for each size.
        sizes: Sizes of batches, in increasing order.
        delay: Longest time in seconds for which an item waits for others, if the thread is free.
        thread: Where ``run`` is called.
        observe: Called after each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item], int], Sequence[Result]],
        sizes: Sequence[int],
        *,
        delay: float,
        thread: ModelThread,
        observe: Observe = lambda *_: None,
    ) -> None:
        self.sizes = tuple(sizes)
        self._run, self._thread = run, thread
        self._delay, self._observe = delay, observe
        self._waiting: collections.deque[_Waiting[Item, Result]] = collections.deque()
        self._arrival = asyncio.Event()

    async def __call__(self, item: Item) -> Result:
        """Return the result for an item.

        An item whose caller is cancelled before its batch begins is not computed.

        Raises:
            Exception: What ``run`` has raised for the batch of this item.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, loop.create_future(), loop.time())
        self._waiting.append(waiting)
        self._arrival.set()
        return await waiting.result

    async def serve(self) -> None:
        """Compute batches until this task is cancelled."""
        while True:
            while not self._waiting:
                await self._arrive(None)
            last = self._waiting[0].arrived + self._delay
            while len(self._waiting) < self.sizes[-1] and await self._arrive(last):
                pass
            async with self._thread.turn:
                await self._compute(self._take())

    async def _arrive(self, until: float | None) -> bool:
        """Wait for another item until a time of the loop, and return whether it has come."""
        self._arrival.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                return await self._arrival.wait()
        return False

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch = []
        while self._waiting and len(batch) < self.sizes[-1]:
            waiting = self._waiting.popleft()
            if not waiting.result.done():  # It is done if its caller was cancelled.
                batch.append(waiting)
        return batch

    async def _compute(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        if not batch:
            return
        items = [waiting.item for waiting in batch]
        size = next(size for size in self.sizes if size >= len(items))
        start = time.perf_counter()
        try:
            results = await self._thread(lambda: self._run(items, size))
            if len(results) != len(items):
                raise ValueError(f"a batch of {len(items)} items has {len(results)} results")
        except Exception as error:  # It is raised again in every request of the batch.
            for waiting in batch:
                if not waiting.result.done():
                    waiting.result.set_exception(error)
            return
        self._observe(len(items), time.perf_counter() - start)
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.result.done():
                waiting.result.set_result(result)


def bucket_sizes(largest: int) -> tuple[int, ...]:
    """Return the sizes to which batches are padded: the powers of two, and the largest size.

    >>> bucket_sizes(1), bucket_sizes(8), bucket_sizes(12)
    ((1,), (1, 2, 4, 8), (1, 2, 4, 8, 12))
    """
    powers = (2**exponent for exponent in range(largest.bit_length()))
    return tuple(sorted({*(power for power in powers if power <= largest), largest}))
