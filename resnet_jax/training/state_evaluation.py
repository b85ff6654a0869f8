"""Evaluation of a state: of its averages, and of the parameters that they are averages of."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from resnet_jax.inference.precise_bn import pooled_statistics
from resnet_jax.training.evaluate import EvalStep, Evaluation, evaluate
from resnet_jax.training.metrics import Metrics
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.setup import Run, StatisticsStep
from resnet_jax.training.state import TrainState


def evaluate_state(
    run: Run,
    eval_step: EvalStep,
    state: TrainState,
    *,
    watch: Callable[[Metrics], None] = lambda _: None,
) -> Evaluation:
    """Return the evaluation of a state on the evaluation split.

    If the state has averages, the evaluation is theirs.  Its metrics then also contain
    ``raw_loss``, ``raw_top1`` and ``raw_top5`` of the parameters themselves.

    Args:
        run: The run.
        eval_step: Its compiled evaluation step.
        state: The state.
        watch: As in `evaluate`.
    """

    def of(variables: dict[str, Any]) -> Evaluation:
        return evaluate(
            eval_step,
            variables,
            run.dataset.evaluation,
            batch_size=run.config.microbatch_size,
            mesh=run.mesh,
            watch=watch,
        )

    evaluation = of(state.evaluated)
    if not state.ema:
        return evaluation
    raw = of(run.place_evaluated(state.variables)).metrics
    metrics = evaluation.metrics | {f"raw_{name}": value for name, value in raw.items()}
    return evaluation._replace(metrics=metrics)


def recompute_statistics(
    run: Run,
    statistics_step: StatisticsStep,
    state: TrainState,
    *,
    watch: Callable[[jax.Array], None] = lambda _: None,
) -> TrainState:
    """Return a state whose averaged parameters have statistics of their own ("Precise BN").

    They are computed from the first training batches of the run, with the augmentation that they
    had in training, so they depend on the parameters alone.  If mixing ends before the run does,
    these batches are not mixed.

    Args:
        run: The run, whose averages are enabled.
        statistics_step: Its compiled step.
        state: The state.
        watch: Called with an array of each batch as soon as the devices have been given it.
    """
    if not state.batch_stats:
        return state
    first = run.first_batches(run.config.averaging.recompute_batches)

    def statistics(batches: Iterator[Any]) -> Iterator[tuple[Any, int]]:
        key = run.step_key
        for step, batch in enumerate(batches):
            found, counts = statistics_step(state.ema, batch, key, np.int32(step))
            watch(counts)
            found, counts = jax.device_get((found, counts))
            for i, count in enumerate(counts):
                yield jax.tree.map(lambda leaf, i=i: leaf[i], found), int(count)

    with Prefetch(first, run.mesh) as batches:
        pooled = pooled_statistics(statistics(batches))
    return dataclasses.replace(state, ema=run.place_evaluated(state.ema | {"batch_stats": pooled}))
