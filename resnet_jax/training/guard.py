"""A guard that skips the steps whose loss or gradients are not finite."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Gradients, Update

Guard = dict[str, jax.Array]
"""What the guard has seen: ``skipped``, int32[], the number of skipped steps of the run;
``in_a_row``, int32[], the number of those since the last step that was not skipped; ``last``,
int32[], the number of the last skipped step, or 0; ``not_finite``, bool[1 + P], whether its loss
and its gradient of each of the P parameter arrays were not finite."""


def initial_guard(params: optax.Params) -> Guard:
    """Return what the guard of a new run has seen: nothing."""
    zero = jnp.zeros((), jnp.int32)
    not_finite = jnp.zeros(1 + len(jax.tree.leaves(params)), bool)
    return {"skipped": zero, "in_a_row": zero, "last": zero, "not_finite": not_finite}


def guarded(update: Update) -> Update:
    """Return an update that skips the steps whose loss or gradients are not finite.

    A skipped step counts as a step, so that the run goes on with the next batch, and the learning
    rate with its schedule.  It changes nothing else: parameters, running statistics, averages and
    the rest of the optimizer state stay the same to the last bit.

    Args:
        update: An update. Averages and everything else that must not change belong to it.
    """

    def guarded_update(state: TrainState, gradients: Gradients) -> TrainState:
        checked = [gradients.metrics.loss, *jax.tree.leaves(gradients.params)]
        not_finite = jnp.stack([~jnp.isfinite(array).all() for array in checked])

        def skip() -> TrainState:
            guard = {
                "skipped": state.guard["skipped"] + 1,
                "in_a_row": state.guard["in_a_row"] + 1,
                "last": state.step + 1,
                "not_finite": not_finite,
            }
            opt_state = _after_the_step_of_a_schedule(state.opt_state)
            return dataclasses.replace(state, step=state.step + 1, opt_state=opt_state, guard=guard)

        def take() -> TrainState:
            guard = state.guard | {"in_a_row": jnp.zeros((), jnp.int32)}
            return dataclasses.replace(update(state, gradients), guard=guard)

        return jax.lax.cond(not_finite.any(), skip, take)

    return guarded_update


def _after_the_step_of_a_schedule(opt_state: optax.OptState) -> optax.OptState:
    """Return the state of an optimizer whose schedules of the learning rate are one step on."""

    def schedules(state: Any) -> bool:
        return isinstance(state, optax.ScaleByScheduleState)

    def advanced(state: Any) -> Any:
        # As in the transformation itself, the count stays at the largest integer.
        count = optax.safe_increment
        return state._replace(count=count(state.count)) if schedules(state) else state

    return jax.tree.map(advanced, opt_state, is_leaf=schedules)


def diagnosis(guard: Mapping[str, Any], params: optax.Params) -> str:
    """Return what was not finite in the last skipped step, for people.

    Args:
        guard: What the guard has seen, on the host.
        params: The parameters, for their names; shapes suffice.
    """
    paths = [
        "/".join(str(key.key) for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    loss, *gradients = np.asarray(guard["not_finite"])
    wrong = [path for path, is_wrong in zip(paths, gradients, strict=True) if is_wrong]
    parts = ["the loss"] if loss else []
    if len(wrong) == len(paths):
        parts.append("all gradients")
    elif wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        parts.append(f"the gradient of {wrong[0]}{more}")
    return f"{' and '.join(parts)} in step {int(guard['last'])}"
