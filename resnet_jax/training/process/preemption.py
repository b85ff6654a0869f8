"""Signals that end a run after the current step: SIGTERM and Ctrl-C."""

import signal
import threading
from types import FrameType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM
"""Exit code of a run that SIGTERM has ended. Its last step is saved, and the same command continues
it."""


class PreemptedError(Exception):
    """Raised when a signal has ended the run; its last step is saved.

    Attributes:
        exit_code: Exit code of the process: 143 after SIGTERM, 130 after Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int = EXIT_CODE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Preemption:
    """Waits for the end of the step when SIGTERM or Ctrl-C comes, instead of dying at once.

    A single process listens here, and a second signal has its usual effect: Ctrl-C then leaves at
    once.  With several processes `jax.distributed` listens to SIGTERM, from its start to its end,
    and agrees with the others on a step that all of them have still to do; Ctrl-C ends them at
    once.

    Use it as a context manager.  In a thread that is not the main one, no signal can be noticed.
    """

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._noticed: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if self._alone and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def ends_after(self, step: int) -> bool:
        """Return True if a step is the last one, in all processes; to be asked at every step."""
        if self._alone:
            return self._noticed is not None
        return multihost_utils.reached_preemption_sync_point(step)

    def error(self, step: int, total_steps: int) -> PreemptedError:
        """Return the error that ends the run after a step, which is saved."""
        number = self._noticed or signal.SIGTERM
        cause = "ended by SIGTERM" if number == signal.SIGTERM else "interrupted by Ctrl-C"
        return PreemptedError(
            f"{cause} after step {step} of {total_steps}, which is saved; the same command "
            "continues from there",
            128 + number,
        )

    def _notice(self, signum: int, frame: FrameType | None) -> None:
        del frame
        self._noticed = signum
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
