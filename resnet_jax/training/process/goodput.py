"""Where the wall time of a run goes."""

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
"""What the host may be at, with names for people."""


class Goodput:
    """A stopwatch that gives each moment of the main thread to one activity.

    Devices work behind the host's back, so waiting for them belongs to what they were given: where
    the host fetches the metrics of steps, that is a step.

    Args:
        started: reading of the clock at which the run began.
        clock: monotonic, in seconds.
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
        """Counts the time within as spent on an activity; within another one, as not on that."""
        outer = self._switch(activity)
        try:
            yield
        finally:
            self._switch(outer)

    @property
    def seconds(self) -> dict[Activity, float]:
        """By activity, up to now; they add up to the wall time since the start."""
        self._switch(self._activity)
        return dict(self._seconds)

    @property
    def shares(self) -> dict[Activity, float]:
        """Of the wall time, by activity; they add up to 1."""
        seconds = self.seconds
        total = sum(seconds.values())
        return {activity: spent / total for activity, spent in seconds.items()}

    def _switch(self, activity: Activity) -> Activity:
        now, previous = self._clock(), self._activity
        self._seconds[previous] += now - self._since
        self._activity, self._since = activity, now
        return previous


def in_words(shares: dict[Activity, float]) -> str:
    """The shares in one line, for people."""
    return ", ".join(f"{ACTIVITIES[activity]} {share:.1%}" for activity, share in shares.items())
