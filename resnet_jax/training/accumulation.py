"""Gradients of a large batch, accumulated over microbatches that fit into memory."""

from typing import TypeVar

import jax
import jax.numpy as jnp

from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Examples, GradientFunction, Gradients

Arrays = TypeVar("Arrays")
"""A pytree of arrays whose first axes are alike."""


def microbatches(batch: Arrays, steps: int) -> Arrays:
    """Return the microbatches of a batch: arrays [steps, B / steps, ...].

    Microbatch i consists of the examples i, i + steps, i + 2 steps, and so on.  Devices that share
    the batch evenly thus share every microbatch evenly, and no example moves to another device.

    Args:
        batch: A pytree of arrays [B, ...].
        steps: Number of microbatches. It divides the batch and the share of each device.
    """
    return jax.tree.map(
        lambda array: jnp.swapaxes(array.reshape(-1, steps, *array.shape[1:]), 0, 1), batch
    )


def whole(parts: Arrays) -> Arrays:
    """Return the batch of some microbatches: the inverse of `microbatches`."""
    return jax.tree.map(
        lambda array: jnp.swapaxes(array, 0, 1).reshape(-1, *array.shape[2:]), parts
    )


def accumulated(compute_gradients: GradientFunction, steps: int) -> GradientFunction:
    """Return a function that computes the gradients of a batch in several steps.

    The result is the mean of the gradients and running statistics of the microbatches, and the sum
    of their metrics.  Without BatchNorm, or with frozen statistics, this equals the gradient of the
    whole batch.  Otherwise each microbatch has its own statistics, and all of them start from the
    same running statistics, so the result equals that of a network whose ``bn_group_size`` is the
    size of a microbatch.

    Args:
        compute_gradients: Gradients of a microbatch.
        steps: Number of microbatches; see `microbatches`.
    """

    def gradients(state: TrainState, examples: Examples, key: jax.Array) -> Gradients:
        def add(total: Gradients, microbatch: tuple[Examples, jax.Array]) -> tuple[Gradients, None]:
            return jax.tree.map(jnp.add, total, compute_gradients(state, *microbatch)), None

        inputs = microbatches(examples, steps), jax.random.split(key, steps)
        first = jax.tree.map(lambda array: array[0], inputs)
        shapes = jax.eval_shape(compute_gradients, state, *first)
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, inputs)
        params, batch_stats = jax.tree.map(
            lambda array: array / steps, (total.params, total.batch_stats)
        )
        return Gradients(params, total.metrics, batch_stats)

    return gradients
