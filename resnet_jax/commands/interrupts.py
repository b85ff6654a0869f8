"""Ctrl-C and SIGTERM, which end a command at a point where its files are consistent."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Raised when a signal ends the command.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM, as a shell reports them.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number

    def report(self) -> int:
        """Print that the command was interrupted, with the notes, and return the exit code."""
        print("; ".join(["interrupted", *getattr(self, "__notes__", [])]), file=sys.stderr)
        return self.exit_code


class Interrupts:
    """Block in which Ctrl-C and SIGTERM raise `Interrupted`, but never while they are held."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyrefly: ignore

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let signals wait until the block ends."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._waiting is not None:
            raise Interrupted(self._waiting)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._held:
            self._waiting = number
        else:
            raise Interrupted(number)
