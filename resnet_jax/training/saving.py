"""When the state of a run is saved, and what is saved with it."""

import time
from collections.abc import Callable
from typing import Any

import jax

from resnet_jax.training.early_stopping import BestEvaluation, badness, best_of
from resnet_jax.training.evaluate import Evaluation
from resnet_jax.training.metrics import Metrics, mean_metrics
from resnet_jax.training.process.distributed import from_primary
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState


class Saver:
    """Decides after which steps a checkpoint is written, and writes it.

    Saving reads the state and changes nothing, so when it happens never changes the result.

    Args:
        run: The run.
        checkpoints: Its checkpoints.
        clock: Monotonic time in seconds.
        best: The best evaluation of a run that stops early, if there was one before.

    Attributes:
        best: The best evaluation so far of a run that stops early. Checkpoints contain it.
    """

    def __init__(
        self,
        run: Run,
        checkpoints: Checkpoints,
        clock: Callable[[], float] = time.monotonic,
        *,
        best: BestEvaluation | None = None,
    ) -> None:
        self.best = best
        self._run, self._checkpoints, self._clock = run, checkpoints, clock
        self._since = clock()
        self._losses: list[Metrics] = []

    @property
    def latest_step(self) -> int | None:
        """The newest step that is completely on disk, or None."""
        return self._checkpoints.latest_step

    @property
    def ranks_evaluations(self) -> bool:
        """Whether the run stops early, so that each evaluation counts."""
        return self._run.config.early_stopping.patience is not None

    @property
    def stopped(self) -> bool:
        """Whether the run has waited long enough for a better evaluation."""
        return self.best is not None and self.best.ends(self._run.config.early_stopping)

    def rank(self, step: int, evaluation: Evaluation) -> None:
        """Compare an evaluation with the best one before, if the run stops early."""
        if self.ranks_evaluations:
            config = self._run.config.early_stopping
            self.best = best_of(self.best, step, evaluation.metrics, config)

    def is_best(self, step: int) -> bool:
        """Return True if the evaluation after a step is the best so far of a run that stops."""
        return self.best is not None and self.best.step == step

    def add(self, fetched: list[Metrics]) -> None:
        """Collect the metrics of steps, by whose loss the next checkpoint may be judged."""
        self._losses += fetched

    def due(self, step: int, *, recorded: bool) -> bool:
        """Return True if the state after a step is to be saved; to be asked after every step.

        Steps are counted, and so is the time since the last checkpoint.  Several processes must
        agree: they go by the clock of process 0, which they ask only at steps whose metrics are
        recorded, because they wait for each other there anyway.

        Args:
            step: Number of steps done.
            recorded: Whether the metrics of this step are recorded, equal in all processes.
        """
        config = self._run.config.checkpoint
        if step == self._run.total_steps or step % config.every_steps == 0:
            return True
        if not config.every_minutes:
            return False
        late = self._clock() - self._since >= 60 * config.every_minutes
        if jax.process_count() == 1:
            return late
        return recorded and from_primary(f"save/{step}", "now" if late else "later") == "now"

    def save(self, state: TrainState, step: int, evaluation: Evaluation | None) -> None:
        """Start to save the state after a step.

        Args:
            state: The state; its arrays may be donated as soon as this returns.
            step: Number of steps done.
            evaluation: The last evaluation of this process, if there was one.
        """
        metadata: dict[str, Any] = {
            "config": self._run.config.to_json(),
            "model": self._run.spec.to_json(),
            "data": {"fingerprint": self._run.dataset.fingerprint, "next_batch": step},
        }
        if self._run.teacher is not None:
            metadata["teacher"] = self._run.teacher_digest
        if self.best is not None:
            metadata["best_evaluation"] = self.best.to_json()
        self._checkpoints.save(state, badness=self._badness(step, evaluation), metadata=metadata)
        self._losses.clear()
        self._since = self._clock()

    def _badness(self, step: int, evaluation: Evaluation | None) -> float | None:
        if self.ranks_evaluations:
            # Only the best state has a value, so that no other one can take its place.
            return self.best.badness if self.best and self.is_best(step) else None
        if self._run.dataset.evaluation_split == "validation":
            config = self._run.config.early_stopping
            return badness(evaluation.metrics, config) if evaluation else None
        # There are no losses if none was finite since the last checkpoint.
        return mean_metrics(self._losses)["loss"] if self._losses else None
