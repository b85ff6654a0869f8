"""Measurement of what the wall time of a run is spent on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Activity = Literal["compile", "data", "step", "evaluation", "checkpoint", "other"]

ACTIVITIES: dict[Activity, str] = {
    "step": "training steps",
    "compile": "compilation",
    "data": "waiting for data",
    "evaluation": "evaluation",
    "checkpoint": "checkpoints",
    "other": "idle and start",
}
"""The activities of the host, with names for people."""


class Goodput:
    """A stopwatch that assigns each moment of the main thread to one activity.

    Devices work asynchronously, so the time spent waiting for them counts for the work they were
    given: when the host fetches the metrics of steps, that counts as a step.

    Args:
        started: When the run began, by ``clock``. By default now.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self, started: float | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._activity: Activity = "other"
        self._since = clock() if started is None else started
        self._seconds: dict[Activity, float] = dict.fromkeys(ACTIVITIES, 0.0)

    @contextmanager
    def spent_on(self, activity: Activity) -> Iterator[None]:
        """Count the time within as spent on an activity, and not on an activity around it."""
        outer = self._switch(activity)
        try:
            yield
        finally:
            self._switch(outer)

    @property
    def seconds(self) -> dict[Activity, float]:
        """Seconds by activity, up to now. They add up to the wall time since the start."""
        self._switch(self._activity)
        return dict(self._seconds)

    @property
    def shares(self) -> dict[Activity, float]:
        """Shares of the wall time by activity. They add up to 1."""
        seconds = self.seconds
        total = sum(seconds.values())
        return {activity: spent / total for activity, spent in seconds.items()}

    def _switch(self, activity: Activity) -> Activity:
        now, previous = self._clock(), self._activity
        self._seconds[previous] += now - self._since
        self._activity, self._since = activity, now
        return previous


def in_words(shares: dict[Activity, float]) -> str:
    """Return the shares in one line, for people."""
    return ", ".join(f"{ACTIVITIES[activity]} {share:.1%}" for activity, share in shares.items())
