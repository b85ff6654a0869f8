"""Moving averages, compared with their closed form, and their use."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from resnet_jax import create_model, load_weights
from resnet_jax.config import AveragingConfig, CheckpointConfig
from resnet_jax.data import Batch
from resnet_jax.training.averaging import Timeline, averaged
from resnet_jax.training.evaluate import make_eval_step
from resnet_jax.training.phases import Phase, Phases
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.sharding import make_mesh, replicated
from resnet_jax.training.state import TrainState, state_of
from resnet_jax.training.step import (
    compose_train_step,
    make_gradients,
    make_loss,
    make_train_step,
    make_update,
)
from tests.fast_compilation import DEFAULT_CODE_GENERATOR
from tests.variables import random_variables

MODEL = create_model("cifar_resnet20", stage_sizes=(1,), width=8)
OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def batch(step: int) -> Batch[jax.Array]:
    images = jax.random.normal(jax.random.key(step), (8, 8, 8, 3))
    return Batch(images, jnp.arange(8) % 10, jnp.ones(8, bool))


def abstract(state: TrainState) -> TrainState:
    sharding = replicated(make_mesh(jax.devices()[:1]))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state
    )


@pytest.fixture(scope="module")
def initial() -> TrainState:
    return state_of(random_variables(MODEL, jnp.zeros((1, 8, 8, 3))), OPTIMIZER, ema=True)


@pytest.mark.parametrize("warmup", [False, True])
def test_averages_are_those_of_the_closed_form(initial: TrainState, warmup: bool) -> None:
    config = AveragingConfig(decay=0.7, warmup="tensorflow" if warmup else "none")
    step = compose_train_step(
        lambda _, images, labels: (images, labels),
        make_gradients(make_loss(MODEL)),
        averaged(make_update(OPTIMIZER), config, Timeline(Phases((Phase(None, 8),), 48), 6, 1.0)),
    )
    jitted = jax.jit(step, compiler_options=DEFAULT_CODE_GENERATOR)
    state, history = initial, [initial.variables]
    for number in range(6):
        state, _ = jitted(state, batch(number), jax.random.key(0))
        history.append(state.variables)

    # The weight of a state is the share that its step took in, times what later steps kept.
    decays = [min(0.7, (1 + t) / (10 + t)) if warmup else 0.7 for t in range(6)]
    weights = [np.prod(decays[t:]) * (1 - decays[t - 1] if t else 1) for t in range(len(history))]
    assert sum(weights) == pytest.approx(1)
    expected = jax.tree.map(lambda *leaves: sum(map(np.multiply, weights, leaves)), *history)
    for ours, theirs in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    # BatchNorm's statistics are averaged like parameters, and averaging changes no parameter.
    assert state.ema.keys() == {"params", "batch_stats"}
    plain = jax.jit(
        make_train_step(MODEL, OPTIMIZER, lambda _, images, labels: (images, labels)),
        compiler_options=DEFAULT_CODE_GENERATOR,
    )
    without, _ = plain(initial.replace(ema={}), batch(0), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, without.variables, history[1])


def test_evaluation_takes_the_averages(initial: TrainState) -> None:
    other = jax.tree.map(lambda leaf: leaf * 1.1, initial.variables)
    state = initial.replace(ema=other)
    eval_step = make_eval_step(MODEL, lambda images: images)
    logits = eval_step(state.evaluated, batch(0)).logits
    expected = MODEL.apply(other, batch(0).image, train=False)
    np.testing.assert_array_equal(logits, expected)
    assert (eval_step(state.replace(ema={}).evaluated, batch(0)).logits != logits).any()


def test_checkpoints_carry_them_and_weights_come_from_them(
    initial: TrainState, tmp_path: Path
) -> None:
    state = initial.replace(ema=jax.tree.map(lambda leaf: leaf + 1, initial.variables))
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig()) as checkpoints:
        checkpoints.save(state, badness=0.0, metadata={})
    with Checkpoints(tmp_path / "checkpoints", CheckpointConfig()) as checkpoints:
        restored, _ = checkpoints.restore(abstract(state))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    loaded = load_weights(MODEL, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, loaded, jax.device_get(state.ema))


def test_a_run_without_averages_has_the_checkpoints_of_before(
    initial: TrainState, tmp_path: Path
) -> None:
    state = initial.replace(ema={})
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(state, badness=0.0, metadata={})
    # Checkpoints had this form before a state could have averages.
    stored = ocp.metadata(tmp_path / "0").metadata
    assert stored.keys() == {"step", "params", "batch_stats", "opt_state"}
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        restored, _ = checkpoints.restore(abstract(state))
    assert restored.ema == {}
    jax.tree.map(np.testing.assert_array_equal, restored, state)
