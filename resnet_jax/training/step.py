"""One step of training, as a pure function that is composed of a gradient and an update.

A `GradientFunction` computes the gradients of a batch, and an `Update` applies them to the state.
Both can be wrapped, and the wrapped function has the same type: `accumulated` and `sharpness_aware`
change how gradients are computed; `averaged`, `guarded` and `rescaled` change what an update does.
A step without such wrappers contains nothing of them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from resnet_jax.data import Batch
from resnet_jax.models import ResNet
from resnet_jax.training.metrics import Metrics, batch_metrics
from resnet_jax.training.objective import Objective, cross_entropy
from resnet_jax.training.optim import stop_below_head
from resnet_jax.training.state import TrainState


class Examples(NamedTuple):
    """A batch after augmentation.

    Attributes:
        images: float32[B, H, W, C].
        targets: int32[B] labels or float32[B, K] targets, for the loss.
        labels: int32[B], for the metrics.
        mask: bool[B], False for examples that the metrics leave out.
    """

    images: jax.Array
    targets: jax.Array
    labels: jax.Array
    mask: jax.Array


class Gradients(NamedTuple):
    """What a forward and a backward pass give.

    Attributes:
        params: Gradient of the mean loss, in the structure of the parameters.
        metrics: Metrics of the batch, with the parameters before the update.
        batch_stats: Running statistics after the batch.
    """

    params: optax.Updates
    metrics: Metrics
    batch_stats: optax.Params


Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""From (key, images, labels) to images and targets, as in `Dataset.augment`."""

Loss = Callable[
    [optax.Params, TrainState, Examples, jax.Array],
    tuple[jax.Array, tuple[Metrics, optax.Params]],
]
"""From (params, state, examples, key) to the mean loss, float32[], with the metrics and the updated
running statistics. The parameters are those of the first argument, not those of the state."""

GradientFunction = Callable[[TrainState, Examples, jax.Array], Gradients]
"""From (state, examples, key) to `Gradients`. The key is for dropout and stochastic depth."""

Update = Callable[[TrainState, Gradients], TrainState]
"""From (state, gradients) to the state after the step."""

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
    augment: Augment,
    *,
    objective: Objective = cross_entropy,
) -> TrainStep:
    """Return the plain training step; see `compose_train_step`.

    Args:
        model: The network.
        optimizer: The optimizer of its parameters.
        augment: The augmentation.
        objective: The loss of each example.
    """
    gradients = make_gradients(make_loss(model, objective))
    return compose_train_step(augment, gradients, make_update(optimizer))


def compose_train_step(
    augment: Augment, compute_gradients: GradientFunction, update: Update
) -> TrainStep:
    """Return a pure function (state, batch, key) -> (state, metrics), to be jitted.

    The key is the same in every step of a run: the function folds the step number into it.  The
    metrics are computed in the forward pass of training, with the parameters before the update.  If
    images are mixed, accuracy counts the label of the first one.  Training batches have no padding,
    so the mask matters for the metrics alone.
    """

    def train_step(
        state: TrainState, batch: Batch[jax.Array], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = step_keys(key, state.step)
        images, targets = augment(augment_key, batch.image, batch.label)
        examples = Examples(images, targets, batch.label, batch.mask)
        gradients = compute_gradients(state, examples, dropout_key)
        return update(state, gradients), gradients.metrics

    return train_step


def make_loss(
    model: ResNet, objective: Objective = cross_entropy, *, head_only: bool = False
) -> Loss:
    """Return the mean loss of a batch as a function of the parameters.

    Args:
        model: The network.
        objective: The loss of each example.
        head_only: Train only the head. The network computes as in evaluation, with the running
            statistics of BatchNorm, and nothing below the head is differentiated.
    """

    def loss(
        params: optax.Params, state: TrainState, examples: Examples, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, optax.Params]]:
        params = stop_below_head(params) if head_only else params
        output: Any = model.apply(
            state.variables | {"params": params},
            examples.images,
            train=not head_only,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        logits, updated = output
        losses = objective(logits, examples.targets)
        metrics = batch_metrics(logits, examples.labels, losses, examples.mask)
        return jnp.mean(losses), (metrics, updated.get("batch_stats", {}))

    return loss


def make_gradients(loss: Loss) -> GradientFunction:
    """Return the gradient of a loss at the parameters of a state."""

    def gradients(state: TrainState, examples: Examples, key: jax.Array) -> Gradients:
        differentiate = jax.grad(loss, has_aux=True)
        params, (metrics, batch_stats) = differentiate(state.params, state, examples, key)
        return Gradients(params, metrics, batch_stats)

    return gradients


def make_update(optimizer: optax.GradientTransformation) -> Update:
    """Return the update that an optimizer makes."""

    def update(state: TrainState, gradients: Gradients) -> TrainState:
        updates, opt_state = optimizer.update(gradients.params, state.opt_state, state.params)
        return dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=gradients.batch_stats,
            opt_state=opt_state,
        )

    return update
