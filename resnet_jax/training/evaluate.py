"""Evaluation of a whole split, exact for every batch size and number of devices and processes."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from resnet_jax.data import Split
from resnet_jax.training.metrics import Metrics, mean_metrics
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import EvalStep


def evaluate(
    eval_step: EvalStep,
    state: TrainState,
    split: Split,
    *,
    batch_size: int,
    mesh: Mesh,
    watch: Callable[[Metrics], None] = lambda _: None,
) -> tuple[dict[str, float], np.ndarray]:
    """Means of the metrics over every example of a split, and its logits in order.

    Args:
        eval_step: of `Run.compile`, or one like it.
        state: parameters and running statistics to evaluate.
        split: N examples.
        batch_size: global; a multiple of the number of devices.
        mesh: the devices.
        watch: called with the metrics of each batch as soon as it is handed to the devices.

    Returns:
        ``loss``, ``top1``, ``top5`` as in `mean_metrics`, and float32[N, K].
    """
    drawn = split.eval_batches(
        batch_size, process_index=jax.process_index(), process_count=jax.process_count()
    )
    results = []
    with Prefetch(drawn, mesh) as batches:
        for batch in batches:
            results.append(eval_step(state, batch))
            watch(results[-1][0])
    metrics = mean_metrics(metrics for metrics, _ in results)
    logits = np.concatenate(jax.device_get([logits for _, logits in results]))
    return metrics, logits[: len(split)]
