"""Batches that are put on the devices before the step that takes them."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from jax.sharding import Mesh

from resnet_jax.training.sharding import shard_batch

_END = object()


class Prefetch:
    """An iterator over batches on the devices; a thread makes the next ones while a step runs.

    Use it as a context manager: leaving it ends the thread and closes the iterator.  If making a
    batch raises an error, `next` raises it when that batch is due.

    Args:
        batches: This process's part of each batch, in NumPy arrays. Only the thread draws from it,
            in order.
        mesh: The devices.
        ahead: Number of batches that may wait on the devices.
    """

    def __init__(self, batches: Iterator[Any], mesh: Mesh, *, ahead: int = 2) -> None:
        self._batches, self._mesh = batches, mesh
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._due: deque[Future[Any]] = deque()
        for _ in range(ahead):
            self._draw_another()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        if close := getattr(self._batches, "close", None):
            close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        batch = self._due.popleft().result()
        self._draw_another()
        if batch is _END:
            raise StopIteration
        return batch

    def _draw_another(self) -> None:
        self._due.append(self._thread.submit(self._draw))

    def _draw(self) -> Any:
        batch = next(self._batches, _END)
        return batch if batch is _END else shard_batch(batch, self._mesh)
