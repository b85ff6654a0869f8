"""Metrics of a run, as JSON lines and as TensorBoard events."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from resnet_jax.report import read_metrics
from resnet_jax.training.rundir.workdir import WorkdirError

# Its classes are made at run time.
_proto: Any = event_pb2


class MetricWriter:
    """Appends to ``metrics.jsonl`` and to TensorBoard event files.

    Records of steps that will be done again are removed first.  Use it as a context manager.

    Args:
        jsonl: File to append to.
        tensorboard: Directory of the event files.
        start_step: Number of steps that are done. Records and events of later steps, from a run
            that was cut off, are removed or hidden.
        active: Whether to write at all; of several processes one does.

    Raises:
        WorkdirError: The files cannot be written, for example because the disk is full.
    """

    def __init__(
        self, jsonl: Path, tensorboard: Path, *, start_step: int, active: bool = True
    ) -> None:
        self._active = active
        if not active:
            return
        self._path = jsonl
        with self._explained():
            _keep_until(jsonl, start_step)
            self._jsonl = jsonl.open("a")
            tensorboard.mkdir(parents=True, exist_ok=True)
            # `SummaryWriter` has a thread that dies when the disk is full, and then blocks.
            self._events = EventsWriter(str(tensorboard / "events"))
            start = _proto.SessionLog(status=_proto.SessionLog.START)
            self._events.write_event(
                _proto.Event(wall_time=time.time(), step=start_step + 1, session_log=start)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._active:
            # If the block has raised an error, that one counts.
            with self._explained() if kind is None else suppress(OSError):
                self._jsonl.close()
                self._events.close()

    def write(self, step: int, epoch: float, kind: str, values: dict[str, float]) -> None:
        """Write one record, with the time in seconds since 1970 as ``time``.

        Args:
            step: Number of steps done.
            epoch: Number of epochs done.
            kind: ``"train"`` or the name of the evaluated split.
            values: Values by name. In TensorBoard the name is ``kind/name``.
        """
        if not self._active:
            return
        now = time.time()
        record = {"step": step, "epoch": epoch, "kind": kind, "time": now, **values}
        with self._explained():
            self._jsonl.write(json.dumps(record) + "\n")
            self._jsonl.flush()
            for name, value in values.items():
                summary = scalar(f"{kind}/{name}", value)
                self._events.write_event(_proto.Event(wall_time=now, step=step, summary=summary))
            self._events.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of writing into one line."""
        try:
            yield
        except OSError as error:
            raise WorkdirError(
                f"metrics could not be written to {self._path.parent}: {error.strerror}; mend "
                "that, and the same command continues from the last checkpoint"
            ) from error


def _keep_until(jsonl: Path, step: int) -> None:
    """Remove the records of later steps and unfinished lines; a crash leaves the old or the new."""
    if not jsonl.exists():
        return
    kept = [record for record in read_metrics(jsonl) if record["step"] <= step]
    content = "".join(json.dumps(record) + "\n" for record in kept)
    if content != jsonl.read_text():
        temporary = jsonl.with_suffix(".tmp")
        temporary.write_text(content)
        os.replace(temporary, jsonl)
