"""SIGTERM: the notice that this process will be ended soon."""

import signal
from types import FrameType
from typing import Self

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM
"""Of a run that was told to end: its last step is saved, and the same command continues it."""


class PreemptedError(Exception):
    """The run was told to end, and its last step is saved."""


class Preemption:
    """Notices SIGTERM instead of dying of it.

    Of several processes `jax.distributed` listens to the signal, from its start to its end, and
    agrees with the others on a step that all of them have still to do.  A single process listens
    here, and dies of a second signal.

    Use it as a context manager, in the main thread.
    """

    def __init__(self) -> None:
        self._noticed = False
        self._alone = jax.process_count() == 1

    def __enter__(self) -> Self:
        if self._alone:
            self._previous = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *error: object) -> None:
        if self._alone:
            signal.signal(signal.SIGTERM, self._previous)

    def ends_after(self, step: int) -> bool:
        """Whether this step is to be the last one, in all processes; to be asked at every step."""
        if self._alone:
            return self._noticed
        return multihost_utils.reached_preemption_sync_point(step)

    def _notice(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self._noticed = True
        signal.signal(signal.SIGTERM, self._previous)
