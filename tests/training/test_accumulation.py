"""Microbatches give the gradients of the whole batch, with less memory, on any devices."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_jax import GroupNorm, ResNet, create_model
from resnet_jax.config import ModelConfig, SyntheticConfig, TrainConfig
from resnet_jax.training.accumulation import accumulated
from resnet_jax.training.metrics import mean_metrics
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import batch_sharded, make_mesh, replicate
from resnet_jax.training.state import state_of
from resnet_jax.training.step import Examples, Gradients, make_gradients, make_loss
from tests.comparison import tree_deviation
from tests.fast_compilation import DEFAULT_CODE_GENERATOR
from tests.variables import random_variables

IMAGES = jax.random.normal(jax.random.key(1), (16, 8, 8, 3))
EXAMPLES = Examples(IMAGES, jnp.arange(16) % 10, jnp.arange(16) % 10, jnp.ones(16, bool))
# Microbatch 0 has the examples 0, 4, 8 and 12.
IN_ORDER_OF_MICROBATCHES = np.arange(16).reshape(4, 4).T.ravel()


def network(**fields: Any) -> ResNet:
    return create_model("cifar_resnet20", stage_sizes=(1,), **({"width": 8} | fields))


def gradients_of(model: ResNet, examples: Examples, steps: int, devices: int = 1) -> Gradients:
    mesh = make_mesh(jax.devices()[:devices])
    compute = make_gradients(make_loss(model))
    compute = accumulated(compute, steps) if steps > 1 else compute
    variables = random_variables(model, IMAGES[:1])
    state = replicate(jax.device_get(state_of(variables, optax.sgd(0.1), ema=False)), mesh)
    jitted = jax.jit(compute, compiler_options=DEFAULT_CODE_GENERATOR)
    return jitted(state, jax.device_put(examples, batch_sharded(mesh)), jax.random.key(0))


def difference(actual: Any, expected: Any) -> float:
    """Return the norm of the difference, relative to the norm of what is expected."""
    ours, theirs = (
        np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
        for tree in (actual, expected)
    )
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize(
    "fields", [{"norm": GroupNorm, "width": 32}, {"freeze_bn": True}], ids=["group_norm", "frozen"]
)
def test_microbatches_equal_the_whole_batch(fields: dict[str, Any]) -> None:
    model = network(**fields)
    whole, parts = (gradients_of(model, EXAMPLES, steps) for steps in (1, 4))
    assert parts.metrics.count == 16
    assert mean_metrics([parts.metrics]) == pytest.approx(mean_metrics([whole.metrics]), rel=1e-6)
    assert difference(parts.params, whole.params) < 1e-6
    assert tree_deviation(parts.batch_stats, whole.batch_stats) < 1e-6


def test_batch_norm_has_the_statistics_of_groups() -> None:
    parts = gradients_of(network(), EXAMPLES, 4)
    grouped = jax.tree.map(lambda array: array[IN_ORDER_OF_MICROBATCHES], EXAMPLES)
    whole = gradients_of(network(bn_group_size=4), grouped, 1)
    # The running statistics are averaged; if each microbatch began with those of the one before,
    # they would keep 0.9^4 of the initial ones.
    assert tree_deviation(parts.batch_stats, whole.batch_stats) < 1e-6
    assert difference(parts.params, whole.params) < 1e-5
    assert difference(parts.params, gradients_of(network(), EXAMPLES, 1).params) > 1e-2


def test_the_number_of_devices_changes_nothing() -> None:
    one, many = (gradients_of(network(), EXAMPLES, 4, count) for count in (1, 4))
    assert difference(many.params, one.params) < 1e-5
    assert tree_deviation(many.batch_stats, one.batch_stats) < 1e-6


def test_no_example_moves_to_another_device() -> None:
    mesh = make_mesh(jax.devices()[:4])

    def sums(_: Any, examples: Examples, __: jax.Array) -> Gradients:
        total = examples.images.sum(axis=(1, 2, 3))
        return Gradients(total, total.sum(), {})  # pyrefly: ignore[bad-argument-type]

    compute: Any = accumulated(sums, 4)
    examples = jax.device_put(EXAMPLES, batch_sharded(mesh))
    text = jax.jit(compute).lower({}, examples, jax.random.key(0)).compile().as_text()
    moves = ("all-to-all", "all-gather", "collective-permute")
    assert not [name for name in moves if f"{name}(" in text and "f32[" in text.split(name)[0]]


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_with_microbatches_needs_less_memory() -> None:
    config = TrainConfig(
        model=ModelConfig("tiny_resnet"),
        data=SyntheticConfig(image_size=32, num_classes=10, train_examples=64, test_examples=64),
        batch_size=64,
        epochs=2.0,
    )

    def temporary_bytes(steps: int) -> tuple[int, ...]:
        run = Run.create(dataclasses.replace(config, accumulate_steps=steps), jax.devices()[:1])
        options: dict[str, Any] = {"xla_backend_optimization_level": 0}
        each: list[Any] = [
            lowered.compile(options).memory_analysis()
            for lowered in (run.lower_train_step(), run._lower_eval_step())
        ]
        return tuple(analysis.temp_size_in_bytes for analysis in each)

    (whole, whole_evaluation), (parts, parts_evaluation) = map(temporary_bytes, (1, 8))
    # The input of each of three convolutions is kept for the backward pass.
    activations = 32 * 32 * (3 + 8 + 8) * 4
    assert whole - parts > 40 * activations
    assert parts_evaluation < whole_evaluation / 4
