"""Metrics as sums and counts, so that they add up exactly over batches, devices and hosts."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Metrics(NamedTuple):
    """Sums over the examples of a batch that are not padding.

    All float32, so that devices exchange them along with the gradients; counts are exact up to
    2**24 examples.

    Attributes:
        loss: sum of the losses, in nats.
        top1: how many have their label first.
        top5: how many have their label among the first five.
        count: how many examples there are.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    count: jax.Array


def batch_metrics(
    logits: jax.Array, labels: jax.Array, losses: jax.Array, mask: jax.Array
) -> Metrics:
    """Metrics of float32[B, K] logits, int32[B] labels, float32[B] losses under a bool[B] mask.

    Of equal logits the one with the lower index comes first; a label whose logit is NaN comes last.
    """
    # Not `jax.lax.top_k`: XLA gathers the logits of all devices for it.
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    later = jnp.arange(logits.shape[-1]) >= labels[:, None]
    behind = (logits < own) | ((logits == own) & later)
    rank = logits.shape[-1] - jnp.sum(behind, axis=-1)

    def count(which: jax.Array) -> jax.Array:
        return jnp.sum(which, where=mask, dtype=jnp.float32)

    return Metrics(
        loss=jnp.sum(losses, where=mask),
        top1=count(rank < 1),
        top5=count(rank < 5),
        count=count(mask),
    )


def mean_metrics(batches: Iterable[Metrics]) -> dict[str, float]:
    """Means over all examples of some batches; waits for the devices.

    Returns:
        ``loss`` in nats, ``top1`` and ``top5`` as shares from 0 to 1.

    Raises:
        ZeroDivisionError: there is no example.
    """
    loss, top1, top5, count = (
        sum(map(float, column)) for column in zip(*jax.device_get(list(batches)), strict=True)
    )
    return {"loss": loss / count, "top1": top1 / count, "top5": top5 / count}
