"""Training step and inference of ResNet-50 as in Flax's ImageNet example."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.peers import Program, Stepper, compiled
from tests.weights.flax_example import FlaxExample

STAGES = {"resnet50": (3, 4, 6, 3), "resnet152": (3, 8, 36, 3)}


def stepper(images: jax.Array, labels: jax.Array, *, dtype: Any = "float32") -> Stepper:
    """Return the training step of ``examples/imagenet/train.py``, compiled with its state.

    The L2 penalty of all parameters except vectors is part of the loss.
    """
    model = FlaxExample(STAGES["resnet50"], bottleneck=True, dtype=jnp.dtype(dtype))
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
    variables = _initial(model, images)
    params = variables["params"]
    state = params, variables["batch_stats"], optimizer.init(params)
    return Stepper(train_step(model, optimizer), state, images, labels)


def train_step(model: FlaxExample, optimizer: optax.GradientTransformation) -> Any:
    """Return a pure function (state, images, labels) -> (state, metrics)."""

    def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        params, batch_stats, opt_state = state

        def loss_fn(params: Any) -> Any:
            logits, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            targets = jax.nn.one_hot(labels, 1000)
            loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
            kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
            penalty = 1e-4 * 0.5 * sum(jnp.sum(kernel**2) for kernel in kernels)
            return loss + penalty, (loss, logits, updated["batch_stats"])

        grads, (loss, logits, batch_stats_) = jax.grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        metrics = {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == labels)}
        return (optax.apply_updates(params, updates), batch_stats_, opt_state), metrics

    return step


def inference(images: jax.Array, *, dtype: Any = "float32") -> Program:
    """Return the compiled program that computes the logits of the images."""
    model = FlaxExample(STAGES["resnet50"], bottleneck=True, dtype=jnp.dtype(dtype))
    variables = _initial(model, images)
    apply = jax.jit(partial(model.apply, train=False))
    executable, seconds, gibibytes = compiled(apply, variables, images)
    return Program(partial(executable, variables, images), seconds, gibibytes)


def _initial(model: FlaxExample, images: jax.Array) -> Any:
    return jax.jit(partial(model.init, train=False))(jax.random.key(1), images[:1])
