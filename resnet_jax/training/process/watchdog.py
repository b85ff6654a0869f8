"""The end of a run that hangs without a word."""

import faulthandler
import os
import sys
import threading
import time
from collections import deque
from typing import Any, Self

import jax

EXIT_CODE = 75
"""Of a run that made no progress: sysexits' "try again"."""


class Watchdog:
    """Ends the process when nothing gets done for too long, with the stacks of all threads.

    Use it as a context manager around what is to be watched.  It sees what the devices have done,
    not what has been handed to them, and it costs the loop nothing.

    Args:
        timeout: in seconds.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._progress = time.monotonic()
        self._pending: deque[Any] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._progress = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def watch(self, outputs: Any) -> None:
        """Counts these arrays as progress as soon as the devices have computed them.

        Args:
            outputs: a pytree of arrays that nobody donates.
        """
        if not self._pending:
            self.done()
        self._pending.append(outputs)

    def done(self) -> None:
        """Counts as progress by itself: something that took place on the host."""
        self._progress = time.monotonic()

    def _look(self) -> None:
        while not self._ended.wait(min(1.0, self._timeout / 4)):
            while self._pending and _ready(self._pending[0]):
                self._pending.popleft()
                self.done()
            if time.monotonic() - self._progress > self._timeout:
                self._end()

    def _end(self) -> None:
        who = f"process {jax.process_index()}: " if jax.process_count() > 1 else ""
        what = "the devices have not finished a step" if self._pending else "no step has ended"
        sys.stdout.flush()
        sys.stderr.write(
            f"{who}error: {what} for {self._timeout:g} s; the stacks of all threads follow; the "
            "same command continues from the last checkpoint; for slower steps raise "
            "watchdog_timeout\n"
        )
        sys.stderr.flush()
        faulthandler.dump_traceback(all_threads=True)
        if jax.process_count() > 1 and jax.process_index() == 0:
            # It serves the others: without it they would end before they have shown their stacks.
            time.sleep(5)
        os._exit(EXIT_CODE)


def _ready(outputs: Any) -> bool:
    return all(leaf.is_ready() for leaf in jax.tree.leaves(outputs))
