"""The directory of a run: one configuration, its checkpoints, its records, its report.

config.json          the resolved configuration
model.json           what is needed to use the network: fields, class names, preprocessing
lock                 held by the process that works here
checkpoints/<step>/  written by Orbax
metrics.jsonl        metrics, one JSON object per line
tensorboard/         the same metrics as events
compilation/         compiled programs, which a continued run does not compile again
profile/             traces of the profiled steps, if any
tracker.json         where a tracker has recorded the run, if one was chosen
report.html          written at the end
result.json          the outcome, for model cards too; written last: the run is complete
"""

import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any, Self, TextIO

from resnet_jax.config import ConfigError, TrainConfig, differing_fields


class WorkdirError(Exception):
    """Raised when a run must not or cannot write to a directory."""


class Workdir:
    """Paths within the directory of a run, and the right to use it.

    The right ends with `close`, with the process, or with the block of a ``with`` statement.  A
    complete run needs no right.

    Args:
        path: The directory. It is created if it does not exist.
        config: The experiment that wants to use it.
        claim: Whether to write to it. One of several processes does, before the others look.

    Raises:
        WorkdirError: The directory belongs to a run of another configuration, holds files that no
            run has written, is in use by another run, cannot be written, or is not shared by the
            processes of the run.  Nothing in it is changed.
    """

    def __init__(self, path: Path, config: TrainConfig, *, claim: bool = True) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.compilation = path / "compilation"
        self.profile = path / "profile"
        self.report = path / "report.html"
        self._result = path / "result.json"
        self._config = path / "config.json"
        self._model = path / "model.json"
        self._lock: TextIO | None = None
        try:
            self._refuse_what_is_not_ours(config)
            if claim and self.result is None:
                path.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(path / "lock")
                # Another run may have come in between.
                self._refuse_what_is_not_ours(config)
                if not self._config.exists():
                    write_json(self._config, config.to_json())
            if not (claim or self._config.exists()):
                raise WorkdirError(
                    f"{path} holds no config.json, which process 0 has written; the processes of a "
                    "run need a run directory that all of them share"
                )
        except OSError as error:
            self.close()
            raise WorkdirError(
                f"{error.filename or path}: {error.strerror}; mend that, or use another run "
                "directory"
            ) from error
        except WorkdirError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another run work here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse_what_is_not_ours(self, config: TrainConfig) -> None:
        if self._config.exists():
            try:
                theirs = TrainConfig.from_json(_read_json(self._config))
            except ConfigError as error:
                raise WorkdirError(
                    f"{self._config}: {error}; mend it, or use another run directory"
                ) from None
            if differences := differing_fields(config, theirs):
                raise WorkdirError(
                    f"{self.path} belongs to a run of another configuration "
                    f"({'; '.join(differences)}); use another run directory"
                )
        else:
            refuse_what_no_run_has_written(self.path)

    @property
    def result(self) -> dict[str, Any] | None:
        """The outcome of a complete run, or None."""
        return _read_json(self._result) if self._result.exists() else None

    def describe(self, model: dict[str, Any]) -> None:
        """Write ``model.json`` if it is not there; directories of older versions have none."""
        if not self._model.exists():
            try:
                write_json(self._model, model)
            except OSError as error:
                raise WorkdirError(
                    f"{self._model}: {error.strerror}; mend that, or use another run directory"
                ) from error

    def complete(self, result: dict[str, Any]) -> None:
        """Mark the run as complete, with its outcome."""
        write_json(self._result, result)


def refuse_what_no_run_has_written(path: Path) -> None:
    """Raise `WorkdirError` if a directory that is not that of a run has files in it.

    Args:
        path: The directory, which need not exist.
    """
    if path.is_file():
        raise WorkdirError(f"{path} is a file; use another run directory")
    if path.exists() and any(child.name != "lock" for child in path.iterdir()):
        raise WorkdirError(
            f"{path} is not empty and holds no config.json of a run; use another run directory"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError(f"it holds {value!r} instead of an object")
    except (RecursionError, ValueError) as error:
        raise WorkdirError(
            f"{path} is damaged ({error}); mend it, or use another run directory"
        ) from None
    return value


def _locked(path: Path) -> TextIO:
    """Return the file, locked while it is open. The kernel unlocks it when the process dies."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            holder = file.read().strip() or "another run"
        raise WorkdirError(
            f"{path.parent} is in use by {holder}; wait for it, end it, or use another run "
            "directory"
        ) from None
    except OSError as error:
        # Some network file systems have no locks; a run works there without one.
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            file.close()
            raise
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON such that a crash leaves either the old file or the new one, never a part."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)
