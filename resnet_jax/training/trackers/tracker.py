"""The hook that tells a tracker about a run, and never stops the run."""

import importlib.util
import json
import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from resnet_jax.suggestions import did_you_mean, nearest
from resnet_jax.training.hooks import EndEvent, EvaluationEvent, Hook, StartEvent, StepEvent
from resnet_jax.training.process.distributed import is_primary
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.rundir.workdir import write_json
from resnet_jax.training.trackers.services import SERVICES, Service, Status

_log = logging.getLogger(__name__)


class Tracker(Hook):
    """Tells a tracker about a run: its configuration, metrics, result and report.

    A thread of its own talks to the tracker.  If that raises an error, one warning is logged and
    the run goes on without the tracker.  If the tracker does not answer, the run goes on, waits for
    it at the end for some time, and then logs one warning.

    ``tracker.json`` in the run directory holds the identity of the run in the tracker, so that a
    continued run is continued there, and the last step that was recorded.  Steps that are done
    again, after the last checkpoint, are not recorded again.

    Use it as a context manager around `train`, so that the tracker also learns of a run that is
    interrupted or fails:

        with Tracker("mlflow") as tracker:
            train(config, "runs/digits", hooks=[tracker])

    Args:
        name: ``"wandb"``, ``"mlflow"`` or ``"trackio"``.
        start_timeout: Number of seconds that the run waits for the tracker at its start, so that
            questions and messages of the tracker come before those of the run.
        end_timeout: Number of seconds that the run waits for the tracker at its end.

    Raises:
        ImportError: The tracker is not installed, in process 0.
        ValueError: There is no such tracker.
    """

    def __init__(
        self, name: str, *, start_timeout: float = 60.0, end_timeout: float = 60.0
    ) -> None:
        if name not in SERVICES:
            hint = did_you_mean(nearest(name, SERVICES), otherwise=f"use {', '.join(SERVICES)}")
            raise ValueError(f"unknown tracker {name!r}: {hint}")
        # A folder of that name, such as that of the tracker's own files, is a package without a
        # file.
        found = importlib.util.find_spec(name)
        # The hooks are called in process 0 only, so that the others do not need the tracker.
        if (found is None or found.origin is None) and is_primary():
            raise ImportError(f"the tracker {name} is not installed: pip install {name}", name=name)
        self._name, self._timeouts = name, (start_timeout, end_timeout)
        self._thread: threading.Thread | None = None
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # The thread alone uses these.
        self._service: Service | None = None
        self._file = Path()
        self._stored: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        interrupted = isinstance(error, PreemptedError | KeyboardInterrupt)
        # The second Ctrl-C ends a run at once.
        timeout = 1.0 if kind is KeyboardInterrupt else self._timeouts[1]
        self._finish("interrupted" if interrupted else "failed", timeout)

    def on_start(self, event: StartEvent) -> None:
        """Begin or continue the run in the tracker."""
        started = threading.Event()
        self._tasks = queue.SimpleQueue()
        self._tasks.put(partial(self._open, event))
        # The thread is not one that Python waits for at its exit.
        self._thread = threading.Thread(
            target=self._work, args=[self._tasks, started], name=self._name, daemon=True
        )
        self._thread.start()
        started.wait(self._timeouts[0])

    def on_step(self, event: StepEvent) -> None:
        """Record the metrics, the learning rate and the throughput of training."""
        values = {
            **event.metrics,
            "learning_rate": event.learning_rate,
            "images_per_second": event.images_per_second,
            "epoch": event.epoch,
        }
        self._tasks.put(partial(self._record, "train", event.step, values))

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Record the metrics of an evaluation."""
        self._tasks.put(partial(self._record, event.split, event.step, dict(event.metrics)))

    def on_end(self, event: EndEvent) -> None:
        """Record the result and the report, and close the run in the tracker."""
        self._tasks.put(lambda: self._opened.end(event))
        self._finish("complete", self._timeouts[1])

    def _finish(self, status: Status, timeout: float) -> None:
        """Close the run in the tracker, if it is not closed, and wait until that is done.

        Args:
            status: How the run has ended.
            timeout: Number of seconds to wait.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._tasks.put(lambda: self._opened.finish(status))
        self._tasks.put(None)
        thread.join(timeout)
        if thread.is_alive():
            _log.warning(
                "the tracker %s has not answered for %g s; it may lack the last metrics of the run",
                self._name,
                timeout,
            )

    @property
    def _opened(self) -> Service:
        assert self._service is not None, "it is opened first"
        return self._service

    def _work(
        self, tasks: "queue.SimpleQueue[Callable[[], None] | None]", started: threading.Event
    ) -> None:
        """Do the tasks in their order, until one fails or None comes.

        Args:
            tasks: The tasks.
            started: Is set when the first task is done or has failed.
        """
        try:
            while task := tasks.get():
                task()
                started.set()
        except Exception as error:
            _log.warning(
                "the tracker %s has failed, and the run goes on without it (%s: %s)",
                self._name,
                type(error).__name__,
                " ".join(str(error).split()),
            )
        finally:
            started.set()

    def _open(self, event: StartEvent) -> None:
        self._file = event.workdir / "tracker.json"
        self._stored = json.loads(self._file.read_text()) if self._file.exists() else {}
        known = self._stored.setdefault(self._name, {"run": {}, "recorded": {}})
        self._service = SERVICES[self._name](event, known["run"])
        known["run"] = self._service.identity
        write_json(self._file, self._stored)

    def _record(self, kind: str, step: int, values: dict[str, float]) -> None:
        recorded = self._stored[self._name]["recorded"]
        if step <= recorded.get(kind, -1):
            return
        self._opened.log(step, {f"{kind}/{name}": value for name, value in values.items()})
        recorded[kind] = step
        write_json(self._file, self._stored)
