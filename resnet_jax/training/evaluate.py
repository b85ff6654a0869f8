"""Evaluation of a split, exact for every batch size and number of devices and processes."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from resnet_jax.data import Batch, DataError, Split
from resnet_jax.models import ResNet
from resnet_jax.training.metrics import Metrics, batch_metrics, mean_metrics
from resnet_jax.training.objective import cross_entropy
from resnet_jax.training.prefetch import Prefetch


class BatchEvaluation(NamedTuple):
    """Evaluation of one batch of B examples.

    Attributes:
        metrics: Sums over the examples under the mask.
        logits: float32[B, K].
        labels: int32[B].
        mask: bool[B], False for padding and for images that were skipped.
    """

    metrics: Metrics
    logits: jax.Array
    labels: jax.Array
    mask: jax.Array


class Evaluation(NamedTuple):
    """Evaluation of a split of N examples, in its order.

    Attributes:
        metrics: Means over the examples under the mask: ``loss`` in nats, ``top1`` and ``top5`` as
            shares from 0 to 1.
        logits: float32[N, K].
        labels: int32[N], from the batches that were evaluated.
        mask: bool[N], False for images that were skipped because they cannot be read. Their logits
            and labels mean nothing.
    """

    metrics: dict[str, float]
    logits: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


EvalStep = Callable[[dict[str, Any], Any], BatchEvaluation]
"""From (variables, batch) to its evaluation. The batch is a `Batch`; for the compiled step of
`Run.compile` it is what the iterator of the evaluation split yields."""


def make_eval_step(
    model: ResNet,
    prepare: Callable[[jax.Array], jax.Array],
    tta: Literal["none", "flip"] = "none",
) -> EvalStep:
    """Return a pure function (variables, batch) -> `BatchEvaluation`, to be jitted.

    BatchNorm uses its running statistics, and the loss is the cross entropy without smoothing.

    Args:
        model: The network.
        prepare: From uint8[B, H, W, C] images to the input of the network.
        tta: Views over which the logits are averaged, see `TrainConfig.tta`.
    """

    def eval_step(variables: dict[str, Any], batch: Batch[jax.Array]) -> BatchEvaluation:
        images = prepare(batch.image)
        logits: Any = model.apply(variables, images, train=False)
        if tta == "flip":
            mirrored: Any = model.apply(variables, images[:, :, ::-1], train=False)
            logits = (logits + mirrored) / 2
        losses = cross_entropy(logits, batch.label)
        metrics = batch_metrics(logits, batch.label, losses, batch.mask)
        return BatchEvaluation(metrics, logits, batch.label, batch.mask)

    return eval_step


def evaluate(
    eval_step: EvalStep,
    variables: dict[str, Any],
    split: Split,
    *,
    batch_size: int,
    mesh: Mesh,
    watch: Callable[[Metrics], None] = lambda _: None,
) -> Evaluation:
    """Return the evaluation of every example of a split.

    Args:
        eval_step: The step of `Run.compile`, or another one with its signature.
        variables: ``params`` and ``batch_stats``.
        split: N examples.
        batch_size: Size of the global batch, a multiple of the number of devices.
        mesh: The devices.
        watch: Called with the metrics of each batch as soon as the devices have been given it.

    Raises:
        DataError: An image cannot be read and is not to be skipped, or none can be read.
    """
    drawn = split.eval_batches(
        batch_size, process_index=jax.process_index(), process_count=jax.process_count()
    )
    results: list[BatchEvaluation] = []
    with Prefetch(drawn, mesh) as batches:
        for batch in batches:
            results.append(eval_step(variables, batch))
            watch(results[-1].metrics)
    # The last batch is padded.
    logits, labels, mask = (
        np.concatenate(jax.device_get(list(parts)))[: len(split)]
        for parts in zip(*(result[1:] for result in results), strict=True)
    )
    if not mask.any():
        raise DataError(f"none of the {len(split)} images to evaluate can be read")
    return Evaluation(
        mean_metrics(result.metrics for result in results), logits, labels, mask.astype(bool)
    )
