"""One step of training, as a pure function."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from resnet_jax.data import Batch
from resnet_jax.models import ResNet
from resnet_jax.training.averaging import EmaDecay
from resnet_jax.training.metrics import Metrics, batch_metrics
from resnet_jax.training.objective import Objective, cross_entropy
from resnet_jax.training.optim import of_head, stop_below_head
from resnet_jax.training.state import TrainState

TrainStep = Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]
"""From (state, batch, key) to (state, metrics). The batch is a `Batch`; for the compiled step of
`Run.compile` it is what the iterator of the training split yields."""


def step_keys(key: jax.Array, step: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Return the keys of the augmentation and of dropout in a step.

    Args:
        key: The key of the run, see `Run.step_key`.
        step: Number of steps done before.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    return augment_key, dropout_key


def make_train_step(
    model: ResNet,
    optimizer: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    *,
    objective: Objective = cross_entropy,
    ema_decay: EmaDecay | None = None,
    head_only: bool = False,
) -> TrainStep:
    """Return a pure function (state, batch, key) -> (state, metrics), to be jitted.

    The key is the same in every step of a run: the function folds the step number into it.  The
    metrics are computed in the forward pass of training, with the parameters before the update.  If
    images are mixed, accuracy counts the label of the first one.  Training batches have no padding,
    so the mask matters for the metrics alone.

    Args:
        model: The network.
        optimizer: The optimizer of its parameters.
        augment: The augmentation, as in `Dataset`.
        objective: The loss of each example.
        ema_decay: Share of the moving averages that a step keeps, see `EmaDecay`. None if the state
            has no averages.
        head_only: Train only the head. The network computes as in evaluation, with the running
            statistics of BatchNorm, and nothing below the head is differentiated.
    """
    optimizer = of_head(optimizer) if head_only else optimizer

    def train_step(
        state: TrainState, batch: Batch[jax.Array], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = step_keys(key, state.step)
        images, targets = augment(augment_key, batch.image, batch.label)

        def loss_fn(
            params: optax.Params,
        ) -> tuple[jax.Array, tuple[Metrics, optax.Params]]:
            params = stop_below_head(params) if head_only else params
            output: Any = model.apply(
                state.variables | {"params": params},
                images,
                train=not head_only,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            logits, updated = output
            losses = objective(logits, targets)
            metrics = batch_metrics(logits, batch.label, losses, batch.mask)
            return jnp.mean(losses), (metrics, updated.get("batch_stats", {}))

        grads, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=state.ema,
        )
        if ema_decay is not None:
            share = 1 - ema_decay(state.step - 1)
            ema: Any = optax.incremental_update(state.variables, state.ema, share)
            state = dataclasses.replace(state, ema=ema)
        return state, metrics

    return train_step
