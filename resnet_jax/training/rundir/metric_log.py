"""Metrics of a run, as JSON lines and as TensorBoard events."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from resnet_jax.training.rundir.workdir import WorkdirError

# Its classes are made at run time.
_proto: Any = event_pb2


class MetricWriter:
    """Appends to ``metrics.jsonl`` and to TensorBoard event files.

    Use it as a context manager.

    Args:
        jsonl: file to append to.
        tensorboard: directory of the event files.
        start_step: events of later steps, from a run that was cut off, are hidden.
        active: whether to write at all; of several processes one does.

    Raises:
        WorkdirError: they cannot be written, such as to a full disk.
    """

    def __init__(
        self, jsonl: Path, tensorboard: Path, *, start_step: int, active: bool = True
    ) -> None:
        self._active = active
        if not active:
            return
        self._path = jsonl
        with self._explained():
            self._jsonl = jsonl.open("a+")
            if self._jsonl.tell():
                # A crash may have left the last line unfinished; the next record needs its own.
                self._jsonl.seek(self._jsonl.tell() - 1)
                if self._jsonl.read() != "\n":
                    self._jsonl.write("\n")
            tensorboard.mkdir(parents=True, exist_ok=True)
            # Not `SummaryWriter`, whose thread dies of a full disk, and the next writes wait.
            self._events = EventsWriter(str(tensorboard / "events"))
            start = _proto.SessionLog(status=_proto.SessionLog.START)
            self._events.write_event(
                _proto.Event(wall_time=time.time(), step=start_step + 1, session_log=start)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._active:
            # The first error counts.
            with self._explained() if kind is None else suppress(OSError):
                self._jsonl.close()
                self._events.close()

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Writes one record.

        Args:
            step: how many steps are done.
            kind: ``"train"`` or the name of the evaluated split.
            values: by name; in TensorBoard the name is ``kind/name``.
        """
        if not self._active:
            return
        with self._explained():
            self._jsonl.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
            self._jsonl.flush()
            for name, value in values.items():
                summary = scalar(f"{kind}/{name}", value)
                self._events.write_event(
                    _proto.Event(wall_time=time.time(), step=step, summary=summary)
                )
            self._events.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of writing in one line."""
        try:
            yield
        except OSError as error:
            raise WorkdirError(
                f"metrics could not be written to {self._path.parent}: {error.strerror}; mend "
                "that, and the same command continues from the last checkpoint"
            ) from error


def read_metrics(jsonl: Path) -> list[dict[str, Any]]:
    """The records of a run in the order of their steps.

    A run that was cut off after its last checkpoint does some steps twice; the later record of a
    step counts.  A last line that a crash left unfinished is passed over.
    """
    records: dict[tuple[str, int], dict[str, Any]] = {}
    for line in jsonl.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        records[record["kind"], record["step"]] = record
    return sorted(records.values(), key=lambda record: record["step"])
