"""Metrics as sums and counts, which add up exactly over batches, devices and processes."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Metrics(NamedTuple):
    """Sums over the examples of a batch that the mask keeps.

    All are float32, so that devices exchange them together with the gradients.  Counts are exact up
    to 2**24 examples.

    Attributes:
        loss: Sum of the losses, in nats.
        top1: Number of examples whose label has the highest logit.
        top5: Number of examples whose label has one of the five highest logits.
        count: Number of examples.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    count: jax.Array


def batch_metrics(
    logits: jax.Array, labels: jax.Array, losses: jax.Array, mask: jax.Array
) -> Metrics:
    """Return the metrics of a batch.

    If logits are equal, the lower index ranks first.  A label whose logit is NaN ranks last.

    Args:
        logits: float32[B, K].
        labels: int32[B].
        losses: float32[B], in nats.
        mask: bool[B]; examples where it is False count nowhere.
    """
    # `jax.lax.top_k` would make XLA gather the logits of all devices.
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    later = jnp.arange(logits.shape[-1]) >= labels[:, None]
    lower = (logits < own) | ((logits == own) & later)
    rank = logits.shape[-1] - jnp.sum(lower, axis=-1)

    def count(which: jax.Array) -> jax.Array:
        return jnp.sum(which, where=mask, dtype=jnp.float32)

    return Metrics(
        loss=jnp.sum(losses, where=mask),
        top1=count(rank < 1),
        top5=count(rank < 5),
        count=count(mask),
    )


def mean_metrics(batches: Iterable[Metrics]) -> dict[str, float]:
    """Return the means over all examples of some batches; waits for the devices.

    Returns:
        ``loss`` in nats, ``top1`` and ``top5`` as shares from 0 to 1.

    Raises:
        ZeroDivisionError: There is no example.
    """
    loss, top1, top5, count = (
        sum(map(float, column)) for column in zip(*jax.device_get(list(batches)), strict=True)
    )
    return {"loss": loss / count, "top1": top1 / count, "top5": top5 / count}
