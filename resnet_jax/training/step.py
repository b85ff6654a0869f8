"""The pure functions at the centre: one step of training, one batch of evaluation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from resnet_jax.data import Batch
from resnet_jax.models import ResNet
from resnet_jax.training.metrics import Metrics, batch_metrics
from resnet_jax.training.objective import cross_entropy
from resnet_jax.training.state import TrainState

TrainStep = Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]
EmaDecay = Callable[[jax.Array], jax.Array | float]
EvalStep = Callable[[TrainState, Any], tuple[Metrics, jax.Array]]
"""Here the second argument is a `Batch`; once compiled, it is what a split's iterators yield."""


def make_train_step(
    model: ResNet,
    optimizer: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    *,
    label_smoothing: float = 0.0,
    ema_decay: EmaDecay | None = None,
) -> TrainStep:
    """A pure function (state, batch, key) -> (state, metrics), to be jitted.

    The key is the run's own and stays the same: the step number is folded into it.  The metrics
    are those of the forward pass of training, under the parameters before the update; of mixed
    images the accuracies count the label of the first.  Training batches are full, as the endless
    iterators of the splits make them: the mask counts in the metrics alone.

    Args:
        model: the network.
        optimizer: of its parameters.
        augment: as in `Dataset`.
        label_smoothing: share of the target that is spread over all classes.
        ema_decay: from the number of steps done before to the share of the averages that this one
            keeps; None where the state has no averages.
    """

    def train_step(
        state: TrainState, batch: Batch[jax.Array], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        images, targets = augment(augment_key, batch.image, batch.label)

        def loss_fn(
            params: optax.Params,
        ) -> tuple[jax.Array, tuple[Metrics, optax.Params]]:
            output: Any = model.apply(
                state.variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            logits, updated = output
            losses = cross_entropy(logits, targets, label_smoothing=label_smoothing)
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


def make_ema_decay(decay: float, *, warmup: bool) -> EmaDecay:
    """Constant, or, with warm-up, at most (1 + t) / (10 + t) after t steps.

    The warm-up forgets the initial parameters, which a constant decay of 0.9999 keeps for tens of
    thousands of steps (TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).
    """

    def ema_decay(step: jax.Array) -> jax.Array | float:
        return jnp.minimum(decay, (1 + step) / (10 + step)) if warmup else decay

    return ema_decay


def make_eval_step(model: ResNet, prepare: Callable[[jax.Array], jax.Array]) -> EvalStep:
    """A pure function (state, batch) -> (metrics, float32[B, K] logits), to be jitted.

    Running statistics are used, and the loss is plain cross entropy without smoothing.  Where the
    state has averages, they are what is evaluated.
    """

    def eval_step(state: TrainState, batch: Batch[jax.Array]) -> tuple[Metrics, jax.Array]:
        logits: Any = model.apply(state.evaluated, prepare(batch.image), train=False)
        losses = cross_entropy(logits, batch.label)
        return batch_metrics(logits, batch.label, losses, batch.mask), logits

    return eval_step
