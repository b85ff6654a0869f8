"""Detection of a run that hangs."""

import faulthandler
import os
import sys
import threading
import time
from collections import deque
from typing import Any, Self

import jax

EXIT_CODE = 75
"""Exit code of a run that made no progress (EX_TEMPFAIL of sysexits.h)."""


class Watchdog:
    """Ends the process, printing the stacks of all threads, when there is no progress for too long.

    Use it as a context manager around the code to watch.  It observes what the devices have
    finished, not what they have been given, in a thread of its own.

    Args:
        timeout: Seconds without progress after which the process ends.
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
        """Count these arrays as progress as soon as the devices have computed them.

        Args:
            outputs: A pytree of arrays that are not donated.
        """
        if not self._pending:
            self.done()
        self._pending.append(outputs)

    def done(self) -> None:
        """Count something that the host has done as progress."""
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
            # Process 0 hosts the store; if it ended first, the others would not print their stacks.
            time.sleep(5)
        os._exit(EXIT_CODE)


def _ready(outputs: Any) -> bool:
    return all(leaf.is_ready() for leaf in jax.tree.leaves(outputs))
