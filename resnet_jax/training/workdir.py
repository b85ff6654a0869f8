"""The directory of a run: one configuration, its checkpoints, its records, its report.

config.json          the resolved configuration
checkpoints/<step>/  Orbax
metrics.jsonl        one JSON object a line
tensorboard/         the same metrics as events
report.html          written at the end
result.json          written last: the run is complete
"""

import json
import os
from pathlib import Path
from typing import Any

from resnet_jax.config import TrainConfig, differing_fields


class WorkdirError(Exception):
    """A directory that this run must not write to."""


class Workdir:
    """Paths within the directory of a run, and the right to use it.

    Args:
        path: created if it does not exist.
        config: of the run that wants to use it.

    Raises:
        WorkdirError: the directory belongs to a run of another configuration, or holds files
            that no run has written.  Nothing in it is changed.
    """

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.report = path / "report.html"
        self._result = path / "result.json"
        self._claim(config)

    def _claim(self, config: TrainConfig) -> None:
        stored = self.path / "config.json"
        if stored.exists():
            try:
                theirs = json.loads(stored.read_text())
            except ValueError as error:
                raise WorkdirError(
                    f"{stored} is damaged ({error}); mend it, or use another --workdir"
                ) from None
            if differences := differing_fields(config.to_json(), theirs):
                raise WorkdirError(
                    f"{self.path} belongs to a run of another configuration "
                    f"({'; '.join(differences)}); use another --workdir"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise WorkdirError(
                f"{self.path} is not empty and holds no config.json of a run; use another --workdir"
            )
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(stored, config.to_json())

    @property
    def result(self) -> dict[str, Any] | None:
        """What the complete run came to, or None while it is not complete."""
        return json.loads(self._result.read_text()) if self._result.exists() else None

    def complete(self, result: dict[str, Any]) -> None:
        """Marks the run as complete."""
        write_json(self._result, result)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes JSON so that a crash leaves the old file or the new one, never half of one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)
