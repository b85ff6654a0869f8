"""Sharpness-aware minimization (Foret et al. 2020, https://arxiv.org/abs/2010.01412)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Examples, GradientFunction, Gradients


def sharpness_aware(
    compute_gradients: GradientFunction,
    *,
    rho: float,
    interval: int = 1,
    trained: Callable[[optax.Params], Any] | None = None,
) -> GradientFunction:
    """Return a function that computes gradients at the worst parameters nearby.

    The parameters move by ``rho * g / (norm(g) + 1e-12)``, where g is their gradient, and the
    gradient there is the result.  This is the rule of Composer's ``SAMOptimizer``.  Composer also
    updates the running statistics of BatchNorm twice.  Here both passes start from the same
    statistics, and the metrics and statistics are those of the first pass, so they equal those of a
    plain step.

    Args:
        compute_gradients: Gradients at the parameters of a state.
        rho: Euclidean norm of the move.
        interval: Number of steps from one such step to the next, as in Composer: with 10, these
            are the steps 10, 20 and so on. The other steps are plain.
        trained: From the parameters to a tree of bools, False for those that do not move and whose
            gradients do not count in the norm. None moves all of them.
    """

    def sharp_gradients(state: TrainState, examples: Examples, key: jax.Array) -> Gradients:
        plain = compute_gradients(state, examples, key)

        def at_worst_parameters() -> optax.Updates:
            direction = plain.params
            if trained is not None:
                direction = jax.tree.map(
                    lambda leaf, moves: leaf if moves else jnp.zeros_like(leaf),
                    direction,
                    trained(state.params),
                )
            factor = rho / (optax.tree.norm(direction) + 1e-12)
            worst = jax.tree.map(
                lambda param, slope: param + factor * slope, state.params, direction
            )
            return compute_gradients(dataclasses.replace(state, params=worst), examples, key).params

        if interval == 1:
            return plain._replace(params=at_worst_parameters())
        due = (state.step + 1) % interval == 0
        return plain._replace(params=jax.lax.cond(due, at_worst_parameters, lambda: plain.params))

    return sharp_gradients
