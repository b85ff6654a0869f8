"""Dynamic loss scaling for float16 (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

The gradients of activations are often smaller than float16 can represent.  The loss is therefore
multiplied by a large scale, and the gradients of the parameters, which are float32, are divided by
it.  A step that overflows halves the scale, and 2,000 steps in a row that do not overflow double
it.  These are the rules and the defaults of Flax's ``DynamicScale``.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Examples, GradientFunction, Gradients, Loss, Update

LossScale = dict[str, jax.Array]
"""``scale``, float32[], and ``good_steps``, int32[], the number of steps without an overflow since
the scale changed."""

GROWTH_INTERVAL = 2000
"""Number of steps without an overflow after which the scale is doubled."""

_LIMITS = jnp.finfo(jnp.float32)


def initial_loss_scale() -> LossScale:
    """Return the scale of a new run, 65,536."""
    return {"scale": jnp.float32(2**16), "good_steps": jnp.zeros((), jnp.int32)}


def make_scaled_gradients(loss: Loss) -> GradientFunction:
    """Return the gradient of a loss, computed from the scaled loss.

    Args:
        loss: The loss, whose network computes in float16.
    """

    def gradients(state: TrainState, examples: Examples, key: jax.Array) -> Gradients:
        scale = state.loss_scale["scale"]

        def scaled(params: optax.Params) -> tuple[jax.Array, Any]:
            value, others = loss(params, state, examples, key)
            return value * scale, others

        params, (metrics, batch_stats) = jax.grad(scaled, has_aux=True)(state.params)
        params = jax.tree.map(lambda gradient: gradient / scale, params)
        return Gradients(params, metrics, batch_stats)

    return gradients


def rescaled(update: Update) -> Update:
    """Return an update that also adapts the scale of the loss.

    Args:
        update: An update that `guarded` has made, which skips the steps that overflow.
    """

    def rescaled_update(state: TrainState, gradients: Gradients) -> TrainState:
        updated = update(state, gradients)
        overflowed = updated.guard["in_a_row"] > 0
        return dataclasses.replace(
            updated, loss_scale=next_loss_scale(state.loss_scale, overflowed)
        )

    return rescaled_update


def next_loss_scale(
    loss_scale: LossScale, overflowed: jax.Array, *, growth_interval: int = GROWTH_INTERVAL
) -> LossScale:
    """Return the scale after a step, as Flax's ``DynamicScale``.

    Args:
        loss_scale: The scale in the step.
        overflowed: bool[], whether a gradient was not finite.
        growth_interval: Number of steps without an overflow after which the scale is doubled.
    """
    scale, good_steps = loss_scale["scale"], loss_scale["good_steps"]
    grows = good_steps == growth_interval
    larger = jnp.where(grows, jnp.minimum(2 * scale, _LIMITS.max), scale)
    smaller = jnp.maximum(scale / 2, _LIMITS.tiny)
    return {
        "scale": jnp.where(overflowed, smaller, larger),
        "good_steps": jnp.where(grows | overflowed, 0, good_steps + 1),
    }
