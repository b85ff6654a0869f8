"""Metrics as sums and counts, so that they add up exactly over batches, devices and hosts."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Metrics(NamedTuple):
    """Sums over the examples of a batch that are not padding.

    Attributes:
        loss: float32[], sum of the losses, in nats.
        top1: int32[], how many have their label first.
        top5: int32[], how many have their label among the first five.
        count: int32[], how many examples there are.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    count: jax.Array


def batch_metrics(
    logits: jax.Array, labels: jax.Array, losses: jax.Array, mask: jax.Array
) -> Metrics:
    """Metrics of float32[B, K] logits, int32[B] labels, float32[B] losses under a bool[B] mask.

    Of equal logits the one with the lower index comes first.
    """
    _, ranked = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    hits = (ranked == labels[:, None]) & mask[:, None]
    return Metrics(
        loss=jnp.sum(losses, where=mask),
        top1=jnp.sum(hits[:, 0]),
        top5=jnp.sum(hits),
        count=jnp.sum(mask),
    )


def mean_metrics(batches: Iterable[Metrics]) -> dict[str, float]:
    """Means over all examples of some batches; waits for the devices.

    Returns:
        ``loss`` in nats, ``top1`` and ``top5`` as shares from 0 to 1.

    Raises:
        ZeroDivisionError: there is no example.
    """
    loss, top1, top5, count = (
        sum(column) for column in zip(*jax.device_get(list(batches)), strict=True)
    )
    return {
        "loss": float(loss / count),
        "top1": float(top1 / count),
        "top5": float(top5 / count),
    }
