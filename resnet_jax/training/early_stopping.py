"""Early stopping: which evaluation is the best so far, and whether to wait for a better one."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from resnet_jax.config import EarlyStoppingConfig


class BestEvaluation(NamedTuple):
    """The best evaluation of a run so far.

    Checkpoints contain it, so that a run that is continued stops after the same step as a run that
    was never interrupted.

    Attributes:
        step: Number of steps done by then.
        badness: The loss, or the top-1 or top-5 error from 0 to 1. Lower is better.
        waited: Number of evaluations since then, none of which was better.
    """

    step: int
    badness: float
    waited: int = 0

    def ends(self, config: EarlyStoppingConfig) -> bool:
        """Return True if the run does not wait any longer for a better evaluation."""
        return config.patience is not None and self.waited >= config.patience

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return self._asdict()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self | None:
        """Return the best evaluation in the metadata of a checkpoint, if there is one."""
        stored = metadata.get("best_evaluation")
        return None if stored is None else cls(**stored)


def best_of(
    best: BestEvaluation | None,
    step: int,
    metrics: Mapping[str, float],
    config: EarlyStoppingConfig,
) -> BestEvaluation:
    """Return the best evaluation after one more. If two are equal, the earlier one counts.

    Args:
        best: The best one before, or None.
        step: Number of steps done.
        metrics: ``loss``, ``top1`` and ``top5`` of the new evaluation.
        config: Which of them decides.
    """
    found = badness(metrics, config)
    if best is None or found < best.badness:
        return BestEvaluation(step, found)
    return best._replace(waited=best.waited + 1)


def badness(metrics: Mapping[str, float], config: EarlyStoppingConfig) -> float:
    """Return the loss, or the top-1 or top-5 error from 0 to 1, as the configuration chooses."""
    return metrics["loss"] if config.metric == "loss" else 1 - metrics[config.metric]
