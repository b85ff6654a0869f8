"""Sharpness-aware minimization follows Composer's rule, with one update of BatchNorm a step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_jax import create_model
from resnet_jax.data import Batch
from resnet_jax.training.metrics import Metrics
from resnet_jax.training.sharpness import sharpness_aware
from resnet_jax.training.state import TrainState, state_of
from resnet_jax.training.step import (
    Examples,
    GradientFunction,
    Gradients,
    compose_train_step,
    make_gradients,
    make_loss,
    make_update,
)
from tests.comparison import tree_deviation
from tests.variables import random_variables

RNG = np.random.default_rng(0)
INPUTS, LABELS = RNG.standard_normal((20, 16, 5)), RNG.integers(0, 3, (20, 16))
KERNEL, BIAS = RNG.standard_normal((5, 3)), RNG.standard_normal(3)
LEARNING_RATE, MOMENTUM, RHO, INTERVAL = 0.3, 0.9, 0.5, 3


def logistic_regression(state: TrainState, examples: Examples, _: jax.Array) -> Gradients:
    def loss(params: Any) -> jax.Array:
        logits = examples.images @ params["kernel"] + params["bias"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels)
        return losses.mean()

    return Gradients(jax.grad(loss)(state.params), Metrics(*[jnp.zeros(())] * 4), {})


def numpy_gradients(kernel: np.ndarray, bias: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    logits = INPUTS[step] @ kernel + bias
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    error = (shares - np.eye(3)[LABELS[step]]) / len(logits)
    return INPUTS[step].T @ error, error.sum(axis=0)


@pytest.mark.parametrize("frozen_bias", [False, True])
def test_twenty_steps_are_those_of_composer(frozen_bias: bool) -> None:
    # A transcription of `SAMOptimizer.step`, where the base optimizer is `torch.optim.SGD`.
    params, traces = [KERNEL.copy(), BIAS.copy()], [np.zeros((5, 3)), np.zeros(3)]
    trained = [True, not frozen_bias]
    for step in range(20):
        grads = numpy_gradients(*params, step)
        if (step + 1) % INTERVAL == 0:
            moved = [grad * move for grad, move in zip(grads, trained, strict=True)]
            norm = np.sqrt(sum(np.sum(grad**2) for grad in moved))
            scale = RHO / (norm + 1e-12)
            worst = [param + scale * grad for param, grad in zip(params, moved, strict=True)]
            grads = numpy_gradients(*worst, step)
        for i, grad in enumerate(grads):
            traces[i] = MOMENTUM * traces[i] + grad
            params[i] = params[i] - LEARNING_RATE * traces[i] * trained[i]

    with jax.enable_x64(True):
        optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
        if frozen_bias:
            mask = {"kernel": False, "bias": True}
            optimizer = optax.chain(optimizer, optax.masked(optax.set_to_zero(), mask))
        gradients = sharpness_aware(
            logistic_regression,
            rho=RHO,
            interval=INTERVAL,
            trained=lambda _: {"kernel": True, "bias": not frozen_bias},
        )
        update = make_update(optimizer)
        variables = {"params": {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}}
        state = state_of(variables, optimizer, ema=False)
        step_of = jax.jit(lambda state, examples: update(state, gradients(state, examples, None)))
        for inputs, labels in zip(INPUTS, LABELS, strict=True):
            labels = jnp.asarray(labels)
            examples = Examples(jnp.asarray(inputs), labels, labels, jnp.ones(16, bool))
            state = step_of(state, examples)
        np.testing.assert_allclose(state.params["kernel"], params[0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(state.params["bias"], params[1], rtol=0, atol=1e-9)


def test_statistics_and_metrics_are_those_of_the_plain_step() -> None:
    model = create_model("cifar_resnet20", stage_sizes=(1,), width=8)
    optimizer, plain = optax.sgd(0.1), make_gradients(make_loss(model))
    state = state_of(random_variables(model, jnp.zeros((1, 8, 8, 3))), optimizer, ema=False)
    images = jax.random.normal(jax.random.key(1), (8, 8, 8, 3))
    batch = Batch(images, jnp.arange(8), jnp.ones(8, bool))

    def after_a_step(gradients: GradientFunction, start: TrainState = state) -> Any:
        step = compose_train_step(lambda _, *arrays: arrays, gradients, make_update(optimizer))
        return jax.jit(step)(start, batch, jax.random.key(0))

    sharp, plain_result = after_a_step(sharpness_aware(plain, rho=0.5)), after_a_step(plain)
    assert tree_deviation(sharp[0].batch_stats, plain_result[0].batch_stats) < 1e-6
    assert tree_deviation(sharp[1], plain_result[1]) < 1e-6
    assert tree_deviation(sharp[0].params, plain_result[0].params) > 1e-3

    # Of two steps, an interval of 2 leaves the first one plain.
    alternating = sharpness_aware(plain, rho=0.5, interval=2)
    first, _ = after_a_step(alternating)
    assert tree_deviation(first.params, plain_result[0].params) < 1e-6
    second = dataclasses.replace(state, step=jnp.ones((), jnp.int32))
    assert tree_deviation(after_a_step(alternating, second)[0].params, sharp[0].params) < 1e-6
