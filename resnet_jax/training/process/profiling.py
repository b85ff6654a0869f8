"""A trace of some steps, and the operations that took longest in it."""

import re
from collections import defaultdict
from collections.abc import Iterator
from heapq import nlargest
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax

from resnet_jax.config import ProfileConfig


class Operation(NamedTuple):
    """One operation of the compiled program.

    Attributes:
        name: Name of the instruction.
        source: The part of the model that it was compiled from, or an empty string.
        seconds: Time in all traced steps and on all devices.
        share: Share of the time of all operations, 0 to 1.
    """

    name: str
    source: str
    seconds: float
    share: float


class Profile:
    """Traces the steps from a first to a last one, for xprof and TensorBoard.

    Use it as a context manager.

    Args:
        directory: Directory of the trace.
        config: First and last step to trace.
    """

    def __init__(self, directory: Path, config: ProfileConfig) -> None:
        self._directory = directory
        self._first, self._last = config.steps or (0, 0)
        self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._running:
            jax.profiler.stop_trace()

    def before(self, step: int, state: Any) -> None:
        """Start the trace if it is due; called with the state that a step will take."""
        if step != self._first:
            return
        # The previous steps are still being computed.
        jax.block_until_ready(state)
        options = jax.profiler.ProfileOptions()
        # Otherwise every call of a Python function would be an event.
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._directory, profiler_options=options)
        self._running = True

    def after(self, step: int, state: Any) -> None:
        """End the trace if it is due; called with the state that a step has returned."""
        if self._running and step == self._last:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False


def top_operations(directory: Path, step: Any, *, count: int = 10) -> list[Operation]:
    """Return the operations that took longest in the newest trace of a directory, longest first.

    If an operation contains others that are in the trace, their time is not counted for it.

    Args:
        directory: The directory of `Profile`. If it has no trace, the result is empty.
        step: The compiled training step, whose text names the source of each instruction.
        count: Number of operations.
    """
    files = sorted(directory.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.parent)
    if not files:
        return []
    seconds = defaultdict[str, float](float)
    for plane in jax.profiler.ProfileData.from_file(str(files[-1])).planes:
        for line in plane.lines:
            events = [event for event in line.events if "hlo_op" in dict(event.stats)]
            for event, nanoseconds in _own_time(events):
                seconds[event.name] += nanoseconds / 1e9
    total = sum(seconds.values())
    sources = _sources(step.func.as_text())
    return [
        Operation(name, _readable(sources.get(name, "")), spent, spent / total)
        for name, spent in nlargest(count, seconds.items(), key=itemgetter(1))
    ]


def _own_time(events: list[Any]) -> Iterator[tuple[Any, float]]:
    """Yield the events of a thread with their nanoseconds, without the events that they contain."""
    own = {id(event): event.duration_ns for event in events}
    outer: list[Any] = []
    for event in sorted(events, key=lambda event: (event.start_ns, -event.duration_ns)):
        while outer and outer[-1].end_ns <= event.start_ns:
            outer.pop()
        if outer:
            own[id(outer[-1])] -= event.duration_ns
        outer.append(event)
    return ((event, own[id(event)]) for event in events)


def _sources(program: str) -> dict[str, str]:
    """Return the sources of the instructions of a compiled program, by their names."""
    sources: dict[str, str] = {}
    # A fusion without a source of its own gets the source of its last instruction.
    inside: dict[str, str] = {}
    computation = ""
    for line in program.splitlines():
        if line.endswith("{"):
            computation = line.removeprefix("ENTRY ").lstrip("%").partition(" ")[0]
        if match := re.match(r"\s+(?:ROOT )?%?([\w.-]+) = ", line):
            source = re.search(r'op_name="([^"]+)"', line)
            called = re.search(r"calls=%?([\w.-]+)", line)
            if source:
                inside[computation] = sources[match[1]] = source[1]
            elif called:
                sources[match[1]] = inside.get(called[1], "")
    return sources


def _readable(op_name: str) -> str:
    """Return the name without wrappers, as in ``backward: stage1/block1/conv1/dot_general``."""
    direction = "backward: " if "transpose(" in op_name else ""
    names = [name for name in op_name.split("/") if not set("(.") & set(name)]
    return direction + "/".join(names)
