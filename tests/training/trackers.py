"""What the tests of trackers share: a run that is interrupted, and modules like the trackers.

The modules accept the calls of the real ones that we use, and refuse what the real ones refuse.
`tests/nightly/trackers.py` makes the same calls to the real ones.
"""

import importlib.machinery
import os
import signal
import sys
import types
from collections import defaultdict
from typing import Any, NamedTuple

import pytest

from resnet_jax.training import Hook, StepEvent


class PreemptedAfter(Hook):
    """Sends SIGTERM to this process after a step, so that the run ends after the next one.

    Attributes:
        step: The step.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, event: StepEvent) -> None:
        """Send it."""
        if event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class FakeRun:
    """What a tracker knows of a run.

    Attributes:
        project: Name of its project.
        name: Name of the run.
        config: Its configuration.
        values: For each metric, the pairs of step and value, in the order of the calls.
        artifacts: Names of the files.
        status: How it ended, or ``"running"``.
    """

    def __init__(self, project: str, name: str, config: dict[str, Any]) -> None:
        self.project, self.name, self.config = project, name, config
        self.values: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.artifacts: list[str] = []
        self.status = "running"


class FakeTracker:
    """A tracker without a network: its module, and what it was told.

    Attributes:
        runs: The runs by their identifier.
        calls: Number of calls so far.
        fails_at: Number of the call that raises an error, or 0.
    """

    def __init__(self) -> None:
        self.runs: dict[str, FakeRun] = {}
        self.calls = 0
        self.fails_at = 0

    def called(self) -> None:
        """Count a call of the module; it may raise an error."""
        self.calls += 1
        if self.calls == self.fails_at:
            raise ConnectionError("the server\nis gone")

    def add(self, identifier: str, values: dict[str, float], step: int) -> None:
        """Record values."""
        for name, value in values.items():
            self.runs[identifier].values[name].append((step, value))


def fake_wandb(tracker: FakeTracker) -> types.ModuleType:
    class Run:
        def __init__(self, identifier: str, project: str) -> None:
            self.id, self.project, self.entity = identifier, project, "team"
            self.summary = types.SimpleNamespace(update=self._update)
            self._preempting = False

        def _update(self, values: dict[str, float]) -> None:
            tracker.called()
            tracker.add(self.id, values, -1)

        def log(self, values: dict[str, float], step: int) -> None:
            tracker.called()
            last = max((s for v in tracker.runs[self.id].values.values() for s, _ in v), default=0)
            if step >= last:  # The real one warns and drops what is older.
                tracker.add(self.id, values, step)

        def log_artifact(self, artifact: Any) -> None:
            tracker.called()
            tracker.runs[self.id].artifacts += artifact.files

        def mark_preempting(self) -> None:
            tracker.called()
            self._preempting = True

        def finish(self, exit_code: int) -> None:
            tracker.called()
            stopped = "preempted" if self._preempting else "failed"
            tracker.runs[self.id].status = stopped if exit_code else "finished"

    class Artifact:
        def __init__(self, name: str, type: str) -> None:  # noqa: A002, ARG002
            assert set(name) <= {*"-_.", *map(chr, range(48, 58)), *map(chr, range(97, 123))}
            self.files: list[str] = []

        def add_file(self, path: str) -> None:
            self.files.append(os.path.basename(path))

    def init(
        *, project: str, entity: str | None, id: str | None, name: str, config: dict[str, Any],  # noqa: A002
        dir: str, resume: str, reinit: str,  # noqa: A002
    ) -> Run:  # fmt: skip
        tracker.called()
        assert (resume, reinit) == ("allow", "create_new")
        assert os.path.isdir(dir)
        identifier = id or f"run{len(tracker.runs)}"
        if identifier not in tracker.runs:
            tracker.runs[identifier] = FakeRun(project, name, config)
        tracker.runs[identifier].status = "running"
        assert entity in (None, "team")
        return Run(identifier, project)

    return module("wandb", init=init, Artifact=Artifact)


class Metric(NamedTuple):
    """As MLflow's."""

    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    """As MLflow's."""

    key: str
    value: str


def fake_mlflow(tracker: FakeTracker) -> types.ModuleType:
    experiments: dict[str, str] = {}

    class MlflowClient:
        def get_experiment_by_name(self, name: str) -> Any:
            tracker.called()
            found = experiments.get(name)
            return found and types.SimpleNamespace(experiment_id=found)

        def create_experiment(self, name: str) -> str:
            tracker.called()
            assert name not in experiments
            experiments[name] = str(len(experiments))
            return experiments[name]

        def create_run(self, experiment_id: str, *, run_name: str) -> Any:
            tracker.called()
            (project,) = (name for name, found in experiments.items() if found == experiment_id)
            identifier = f"run{len(tracker.runs)}"
            tracker.runs[identifier] = FakeRun(project, run_name, {})
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=identifier))

        def update_run(self, run_id: str, *, status: str) -> None:
            tracker.called()
            tracker.runs[run_id].status = status.lower()

        def log_batch(self, run_id: str, *, metrics: Any = (), params: Any = ()) -> None:
            tracker.called()
            assert len(params) <= 100
            tracker.runs[run_id].config |= dict(params)
            for key, value, timestamp, step in metrics:
                assert timestamp > 1e12, "milliseconds"
                tracker.add(run_id, {key: value}, step)

        def log_artifact(self, run_id: str, path: str) -> None:
            tracker.called()
            tracker.runs[run_id].artifacts.append(os.path.basename(path))

        def set_terminated(self, run_id: str, status: str) -> None:
            tracker.called()
            tracker.runs[run_id].status = status.lower()

    entities = module("mlflow.entities", Metric=Metric, Param=Param)
    return module("mlflow", MlflowClient=MlflowClient, entities=entities)


def fake_trackio(tracker: FakeTracker) -> types.ModuleType:
    class Run:
        def __init__(self, name: str) -> None:
            self._name = name

        def log(self, values: dict[str, float], step: int) -> None:
            tracker.called()
            tracker.add(self._name, values, step)

        def log_artifact(self, path: Any, *, type: str) -> None:  # noqa: A002, ARG002
            tracker.called()
            tracker.runs[self._name].artifacts.append(path.name)

        def finish(self) -> None:
            tracker.called()
            tracker.runs[self._name].status = "finished"

    def init(project: str, *, name: str, config: dict[str, Any], resume: str, embed: bool) -> Run:
        tracker.called()
        assert resume == "allow"
        assert not embed
        if name not in tracker.runs:
            tracker.runs[name] = FakeRun(project, name, config)
        tracker.runs[name].status = "running"
        return Run(name)

    return module("trackio", init=init)


FAKES = {"wandb": fake_wandb, "mlflow": fake_mlflow, "trackio": fake_trackio}


def module(name: str, **contents: Any) -> types.ModuleType:
    """Return a module that is not in a file."""
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="a test")
    vars(made).update(contents)
    return made


def install(name: str, monkeypatch: pytest.MonkeyPatch) -> FakeTracker:
    """Install a fake tracker in this process."""
    tracker = FakeTracker()
    made = FAKES[name](tracker)
    monkeypatch.setitem(sys.modules, name, made)
    if hasattr(made, "entities"):
        monkeypatch.setitem(sys.modules, "mlflow.entities", made.entities)
    for variable in ("WANDB_PROJECT", "WANDB_DIR", "MLFLOW_EXPERIMENT_ID", "TRACKIO_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return tracker
