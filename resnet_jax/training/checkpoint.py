"""Checkpoints through Orbax; no other module imports it."""

from pathlib import Path
from typing import Any, Self

import jax
from orbax.checkpoint import v1 as ocp

from resnet_jax.config import CheckpointConfig
from resnet_jax.training.state import TrainState

# Its annotations reject its own policies and trees.
_training: Any = ocp.training


class CheckpointError(Exception):
    """A checkpoint that this run cannot go on from."""


class Checkpoints:
    """The checkpoints of one run: the latest few and the best few, written in the background.

    Use it as a context manager: leaving it waits for the last write.
    """

    def __init__(self, directory: Path, config: CheckpointConfig) -> None:
        self._checkpointer = _training.Checkpointer(
            directory.absolute(),
            # The loop decides when to save.  Orbax's default policy would skip a save, silently,
            # while another one is being written.
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

    def __exit__(self, *error: object) -> None:
        self._checkpointer.close()

    @property
    def latest_step(self) -> int | None:
        """The newest step that is completely on disk, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, *, badness: float, metadata: dict[str, Any]) -> None:
        """Starts to write a checkpoint; a write still under way is waited for first.

        Args:
            state: its arrays may be donated as soon as this returns.
            badness: the lower, the better the checkpoint.
            metadata: JSON that `restore` gives back.

        Raises:
            CheckpointError: Orbax declined to write it.
        """
        step = int(state.step)
        response = self._checkpointer.save_async(
            step, state, metrics={"badness": badness}, custom_metadata=metadata
        )
        if response is None:
            raise CheckpointError(f"the checkpoint of step {step} was not written")

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint and its metadata.

        Args:
            abstract: shapes, dtypes and shardings that the state is to have.

        Raises:
            CheckpointError: shapes or dtypes are not those of the checkpoint, which are named.
        """
        found = self._checkpointer.metadata(self.latest_step)
        problems = _mismatches(found.metadata, abstract)
        if problems:
            raise CheckpointError(
                f"the checkpoint {found.path} does not fit: {'; '.join(problems[:5])}"
            )
        state = self._checkpointer.load(self.latest_step, abstract)
        return state, found.custom_metadata


def _badness(metrics: dict[str, float]) -> float:
    return metrics["badness"]


def _mismatches(stored: Any, expected: Any) -> list[str]:
    """Arrays that are absent on one side, or differ in shape or dtype."""
    theirs, ours = _by_name(stored), _by_name(expected)
    return [
        f"{name} is {theirs.get(name, 'absent')} in it, {ours.get(name, 'absent')} here"
        for name in theirs | ours
        if theirs.get(name) != ours.get(name)
    ]


def _by_name(tree: Any) -> dict[str, str]:
    return {
        # Orbax turns attributes and indices into keys, so only their text can be compared.
        "/".join(
            str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", None))))
            for key in path
        ): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
