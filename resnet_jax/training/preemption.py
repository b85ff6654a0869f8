"""SIGTERM: the notice that this process will be ended soon."""

import signal
from types import FrameType
from typing import Self

EXIT_CODE = 128 + signal.SIGTERM
"""Of a run that was told to end: its last step is saved, and the same command continues it."""


class PreemptedError(Exception):
    """The run was told to end, and its last step is saved."""


class Preemption:
    """Notices SIGTERM instead of dying of it; a second one is deadly as ever.

    Use it as a context manager, in the main thread.

    Attributes:
        noticed: whether the signal has come.
    """

    def __init__(self) -> None:
        self.noticed = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _notice(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self.noticed = True
        signal.signal(signal.SIGTERM, self._previous)
