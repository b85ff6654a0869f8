"""What each tracker is told, in its own words.

The user installs the trackers.  Each is imported when its first run begins.  They were tried in
these versions: wandb 0.31.0, mlflow 3.17.2 and trackio 0.43.0.
"""

import importlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

from resnet_jax.training.hooks import EndEvent, StartEvent

PROJECT = "resnet_jax"
"""Name of the project in which runs are collected, unless an environment variable names another."""

Status = Literal["complete", "interrupted", "failed"]
"""How a run ended. An interrupted one will be continued."""


class Service(Protocol):
    """A run in a tracker.

    It is created from the start of our run and from the identity that an earlier session of the run
    has stored, which is empty for a new run.  Any method may raise any error.
    """

    @property
    def identity(self) -> dict[str, str]:
        """What finds the run again in the tracker."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values after a number of steps."""
        ...

    def end(self, event: EndEvent) -> None:
        """Record the result, and the report as an artifact."""
        ...

    def finish(self, status: Status) -> None:
        """Send what is left, and close the run."""
        ...


class Wandb:
    """A run of Weights & Biases.

    Its files are in ``wandb/`` within the run directory, unless ``WANDB_DIR`` is set.
    """

    def __init__(self, start: StartEvent, identity: Mapping[str, str]) -> None:
        self._wandb = importlib.import_module("wandb")
        self._run = self._wandb.init(
            project=identity.get("project") or os.environ.get("WANDB_PROJECT", PROJECT),
            entity=identity.get("entity"),
            id=identity.get("id"),
            name=start.workdir.name,
            config=start.config.to_json(),
            dir=os.environ.get("WANDB_DIR", str(start.workdir)),
            resume="allow",
            # A run of the caller's own, in a notebook for example, goes on.
            reinit="create_new",
        )

    @property
    def identity(self) -> dict[str, str]:
        """What finds the run again in the tracker."""
        found = {"id": self._run.id, "project": self._run.project, "entity": self._run.entity}
        # Offline runs have no entity.
        return {name: value for name, value in found.items() if value}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values after a number of steps."""
        self._run.log(dict(values), step=step)

    def end(self, event: EndEvent) -> None:
        """Record the result, and the report as an artifact."""
        self._run.summary.update(_result(event))
        artifact = self._wandb.Artifact(f"report-{self._run.id}", type="report")
        artifact.add_file(str(event.report))
        self._run.log_artifact(artifact)

    def finish(self, status: Status) -> None:
        """Send what is left, and close the run."""
        if status == "interrupted":
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if status == "complete" else 1)


class Mlflow:
    """A run of MLflow. ``MLFLOW_TRACKING_URI`` says where its server or its files are."""

    # Most parameters in one request.
    _MAX_PARAMS = 100

    def __init__(self, start: StartEvent, identity: Mapping[str, str]) -> None:
        mlflow = importlib.import_module("mlflow")
        self._entities = importlib.import_module("mlflow.entities")
        # A client changes neither the active run nor the active experiment of the caller.
        self._client = mlflow.MlflowClient()
        if run_id := identity.get("run_id"):
            self._run_id = run_id
            self._client.update_run(run_id, status="RUNNING")
            return
        run = self._client.create_run(self._experiment(), run_name=start.workdir.name)
        self._run_id = run.info.run_id
        params = [
            self._entities.Param(name, str(value)) for name, value in _flat(start.config.to_json())
        ]
        for first in range(0, len(params), self._MAX_PARAMS):
            chosen = params[first : first + self._MAX_PARAMS]
            self._client.log_batch(self._run_id, params=chosen)

    def _experiment(self) -> str:
        """Return the identifier of the experiment that collects the runs."""
        if identifier := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return identifier
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name)

    @property
    def identity(self) -> dict[str, str]:
        """What finds the run again in the tracker."""
        return {"run_id": self._run_id}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values after a number of steps."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def end(self, event: EndEvent) -> None:
        """Record the result, and the report as an artifact."""
        self.log(event.step, _result(event))
        self._client.log_artifact(self._run_id, str(event.report))

    def finish(self, status: Status) -> None:
        """Send what is left, and close the run."""
        names = {"complete": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
        self._client.set_terminated(self._run_id, names[status])


class Trackio:
    """A run of Trackio. ``TRACKIO_DIR``, ``TRACKIO_SPACE_ID`` and others say where it is."""

    def __init__(self, start: StartEvent, identity: Mapping[str, str]) -> None:
        trackio = importlib.import_module("trackio")
        # Trackio finds a run by its name, so that two run directories must not share one.
        name = identity.get("name") or f"{start.workdir.name}-{uuid.uuid4().hex[:8]}"
        project = identity.get("project") or os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.identity = {"name": name, "project": project}
        self._run = trackio.init(
            project,
            name=name,
            config=dict(_flat(start.config.to_json())),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values after a number of steps."""
        self._run.log(dict(values), step=step)

    def end(self, event: EndEvent) -> None:
        """Record the result, and the report as an artifact."""
        self.log(event.step, _result(event))
        self._run.log_artifact(event.report, type="report")

    def finish(self, status: Status) -> None:  # noqa: ARG002
        """Send what is left, and close the run."""
        self._run.finish()


SERVICES: dict[str, Callable[[StartEvent, Mapping[str, str]], Service]] = {
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}
"""The trackers, by the name of the package that a user installs and imports."""


def _result(event: EndEvent) -> dict[str, float]:
    metrics = {f"result/{name}": value for name, value in event.metrics.items()}
    return metrics | {"result/step": event.step, "result/seconds": event.seconds}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the fields of a configuration by their dotted names, as on the command line."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
