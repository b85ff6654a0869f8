"""Checkpoints, written by Orbax and verified when they are read.

Orbax itself returns an array whose file has a flipped bit, and may report a step as the latest
although its files are gone.  Therefore each checkpoint carries the type and the digest of every
array, and a checkpoint that does not agree with them is set aside.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
from orbax.checkpoint import v1 as ocp

from resnet_jax.config import CheckpointConfig
from resnet_jax.training.process.distributed import gather, is_primary, primary_first
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.state import TrainState
from resnet_jax.weights.formats.digests import describe_arrays, json_digest, type_differences

SCHEMA_VERSION = 1
"""Version of the content of a checkpoint. Other versions are refused."""

# Orbax's annotations reject its own policies and trees.
_training: Any = ocp.training
_log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """Raised when a checkpoint cannot be written, or the run cannot continue from it."""


class _DamagedError(Exception):
    """Raised when a checkpoint is not what was written."""


class Checkpoints:
    """The newest and the best checkpoints of one run, written in the background.

    Use it as a context manager: leaving it waits for the last write.

    Args:
        directory: The directory of the checkpoints.
        config: Which checkpoints are kept.

    Raises:
        CheckpointError: Every checkpoint in the directory is damaged, or the last one could not be
            written.
    """

    def __init__(self, directory: Path, config: CheckpointConfig) -> None:
        self._directory = directory.absolute()
        with primary_first("checkpoints"):
            self._set_aside_without_metrics()
            self._require_an_undamaged_one()
        self._checkpointer = _training.Checkpointer(
            self._directory,
            # The loop decides when to save.  Orbax's default policy silently skips a save while
            # another one is being written.
            save_decision_policy=_training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=_training.preservation_policies.AnyPreservationPolicy(
                [
                    _training.preservation_policies.LatestN(config.keep_latest),
                    _training.preservation_policies.BestN(
                        get_metric_fn=_badness,
                        reverse=True,
                        n=config.keep_best,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Closing waits for the other processes, which may not know of the error yet.
        together = error is None or isinstance(error, PreemptedError)
        if together:
            with self._explained():
                self._checkpointer.close()
        elif jax.process_count() == 1 and kind is not KeyboardInterrupt:
            # The first error counts, and Ctrl-C does not wait for a write.
            with suppress(Exception):
                self._checkpointer.close()

    @property
    def latest_step(self) -> int | None:
        """The newest step that is completely on disk, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def wait(self) -> None:
        """Return when everything that was saved is on disk."""
        with self._explained():
            self._checkpointer.wait()

    def save(self, state: TrainState, *, badness: float | None, metadata: dict[str, Any]) -> None:
        """Start to write a checkpoint, after waiting for the previous write to end.

        Args:
            state: The state. Its arrays may be donated as soon as this returns.
            badness: Number that is lower for better checkpoints. None if this one is not to be kept
                as one of the best.
            metadata: JSON that `restore` returns.

        Raises:
            CheckpointError: Orbax declined to write it, or could not write the previous one.
        """
        step = int(state.step)
        content = {
            "schema_version": SCHEMA_VERSION,
            "arrays": describe_arrays(state),
            "metadata": metadata,
        }
        with self._explained():
            response = self._checkpointer.save_async(
                step,
                _present(state),
                metrics=None if badness is None else {"badness": badness},
                custom_metadata={**content, "sha256": json_digest(content)},
            )
        if response is None:
            raise CheckpointError(f"the checkpoint of step {step} was not written")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of writing into one line. Earlier checkpoints stay on disk."""
        try:
            yield
        except Exception as error:
            reason, _, _ = str(_origin(error)).partition(" [")
            raise CheckpointError(
                f"a checkpoint could not be written to {self._directory}: {reason}; mend that, and "
                "the same command continues from the last one"
            ) from error

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Return the newest undamaged checkpoint and its metadata.

        Afterward `latest_step` is its step.  Damaged checkpoints are renamed to
        ``<step>.damaged``, with a warning.

        Args:
            abstract: Shapes, dtypes and shardings of the state.

        Raises:
            CheckpointError: The checkpoint has other shapes or dtypes, which the message names in
                one line each.  Or another version has written it, or every checkpoint is damaged.
        """
        while (step := self.latest_step) is not None:
            try:
                loaded, damage = self._load(step, abstract), ""
            except _DamagedError as error:
                loaded, damage = None, str(error)
            # If one process cannot read a checkpoint, none may use it.
            damages = [found for found in gather(f"damage/{step}", damage) if found]
            if loaded and not damages:
                return loaded
            with primary_first(f"set aside/{step}"):
                if is_primary():
                    self._set_aside(step, damages[0])
            self._checkpointer.reload()
        self._require_an_undamaged_one()
        raise CheckpointError(f"there is no checkpoint in {self._directory}")

    def restore_step(self, step: int, abstract: TrainState) -> TrainState:
        """Return the checkpoint of one step, such as the best one.

        Args:
            step: The step.
            abstract: Shapes, dtypes and shardings of the state.

        Raises:
            CheckpointError: The checkpoint is damaged or gone.
        """
        try:
            state, _ = self._load(step, abstract)
        except _DamagedError as error:
            raise CheckpointError(
                f"the checkpoint {self._directory / str(step)} is damaged ({error}), and the run "
                "needs it; bring it back from a copy, or start again in another run directory"
            ) from error
        return state

    def _load(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        path = self._directory / str(step)
        try:
            content = dict(self._checkpointer.metadata(step).custom_metadata or {})
        except Exception as error:
            raise _as_damage(error) from error
        digest = content.pop("sha256", None)
        version = content.get("schema_version")
        if content and version != SCHEMA_VERSION:
            raise CheckpointError(
                f"{path} is of schema version {version}, this resnet_jax reads {SCHEMA_VERSION}; "
                "continue with the version of resnet_jax that wrote it"
            )
        if digest != json_digest(content):
            raise _DamagedError("the list of its arrays is absent or not what was written")
        if differences := type_differences(content["arrays"], abstract):
            lines = "\n  ".join(differences)
            raise CheckpointError(f"the checkpoint {path} does not fit:\n  {lines}")

        try:
            loaded = self._checkpointer.load(step, _present(abstract))
        except Exception as error:
            raise _as_damage(error) from error
        state = dataclasses.replace(abstract, **loaded)
        arrays = describe_arrays(state)
        if changed := [name for name in arrays if arrays[name] != content["arrays"][name]]:
            raise _DamagedError(f"what was read differs from what was written in {changed}")
        return state, content["metadata"]

    def _set_aside(self, step: int, reason: str) -> None:
        path = self._directory / str(step)
        aside = path.with_name(f"{step}.damaged")
        while aside.exists():
            aside = aside.with_name(f"{aside.name}+")
        path.rename(aside)
        _log.warning("the checkpoint %s is damaged and now named %s: %s", path, aside.name, reason)

    def _set_aside_without_metrics(self) -> None:
        """Set aside the steps whose metrics would keep Orbax from starting."""
        for path in self._directory.glob("[0-9]*/metrics/metrics"):
            try:
                json.loads(path.read_text())
            except ValueError as error:
                self._set_aside(int(path.parts[-3]), f"{path.name} cannot be read: {error}")

    def _require_an_undamaged_one(self) -> None:
        names = [path.name for path in self._directory.glob("[0-9]*")]
        damaged = sorted(name for name in names if ".damaged" in name)
        if damaged and not any(name.isdigit() for name in names):
            raise CheckpointError(
                f"no undamaged checkpoint is left in {self._directory}, only {', '.join(damaged)}; "
                "bring one back from a copy, or start again in another run directory"
            )


def _present(state: TrainState) -> dict[str, Any]:
    """Return the content of a checkpoint.

    Optional fields, such as the averages, are omitted when they are empty, so that checkpoints from
    before these fields existed still load.
    """
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    optional = ("ema", "guard", "loss_scale")
    return {name: value for name, value in fields.items() if name not in optional or value}


def _badness(metrics: dict[str, float]) -> float:
    return metrics["badness"]


def _as_damage(error: Exception) -> Exception:
    """Return the error as a `_DamagedError` if its origin is in the files, else unchanged.

    Orbax wraps every error, including Ctrl-C and a lack of memory.
    """
    origin = _origin(error)
    if not isinstance(origin, (ValueError, LookupError, FileNotFoundError)):
        return error
    reason, _, _ = str(origin).partition(" [tensorstore_spec")
    return _DamagedError(f"Orbax cannot read it: {reason}")


def _origin(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
