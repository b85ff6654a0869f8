"""Steps that are not finite are skipped, counted and shown, and too many of them end the run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import flax.training.dynamic_scale
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from resnet_jax import create_model
from resnet_jax.config import (
    AveragingConfig,
    CheckpointConfig,
    ConfigError,
    GuardConfig,
    ModelConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.data import Batch
from resnet_jax.training.averaging import Timeline, averaged
from resnet_jax.training.guard import diagnosis, guarded, initial_guard
from resnet_jax.training.loop import TrainingDivergedError, train
from resnet_jax.training.loss_scale import (
    initial_loss_scale,
    make_scaled_gradients,
    next_loss_scale,
    rescaled,
)
from resnet_jax.training.metrics import Metrics
from resnet_jax.training.phases import Phase, Phases
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState, state_of
from resnet_jax.training.step import (
    Gradients,
    TrainStep,
    compose_train_step,
    make_gradients,
    make_loss,
    make_update,
)
from tests.fast_compilation import DEFAULT_CODE_GENERATOR
from tests.variables import random_variables

MODEL = create_model("cifar_resnet20", stage_sizes=(1,), width=8)
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
TIMELINE = Timeline(Phases((Phase(None, 8),), 48), 6, epochs=1.0)
UPDATE = averaged(make_update(OPTIMIZER), AveragingConfig(decay=0.9), TIMELINE)
KEY = jax.random.key(0)


def batch(poison: float = 1.0) -> Batch[jax.Array]:
    images = jax.random.normal(jax.random.key(1), (8, 8, 8, 3)).at[3, 2, 2, 1].mul(poison)
    return Batch(images, jnp.arange(8) % 10, jnp.ones(8, bool))


def jitted(gradients: Any, update: Any) -> TrainStep:
    step = compose_train_step(lambda _, *arrays: arrays, gradients, update)
    return jax.jit(step, compiler_options=DEFAULT_CODE_GENERATOR)


def first_state() -> TrainState:
    state = state_of(random_variables(MODEL, batch().image), OPTIMIZER, ema=True)
    return dataclasses.replace(state, guard=initial_guard(state.params))


def everything_but_the_counters(state: TrainState) -> Any:
    return jax.device_get((state.params, state.batch_stats, state.opt_state, state.ema))


def test_a_step_that_is_not_finite_changes_nothing_and_the_next_ones_count() -> None:
    gradients = make_gradients(make_loss(MODEL))
    step, plain = jitted(gradients, guarded(UPDATE)), jitted(gradients, UPDATE)
    before, _ = step(first_state(), batch(), KEY)
    expected, _ = plain(dataclasses.replace(first_state(), guard={}), batch(), KEY)
    for ours, theirs in zip(
        jax.tree.leaves(everything_but_the_counters(before)),
        jax.tree.leaves(everything_but_the_counters(expected)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)

    # XLA's CPU backend hides some of the NaN, so that the loss may be finite.
    state, _ = step(before, batch(np.nan), KEY)
    jax.tree.map(
        np.testing.assert_array_equal,
        everything_but_the_counters(state),
        everything_but_the_counters(before),
    )
    assert (int(state.step), int(state.guard["skipped"]), int(state.guard["in_a_row"])) == (2, 1, 1)
    assert diagnosis(state.guard, state.params).endswith(" in step 2")
    state, _ = step(state, batch(np.inf), KEY)
    assert (int(state.guard["skipped"]), int(state.guard["in_a_row"])) == (2, 2)
    state, _ = step(state, batch(), KEY)
    assert (int(state.step), int(state.guard["skipped"]), int(state.guard["in_a_row"])) == (4, 2, 0)
    assert not np.array_equal(state.params["head"]["bias"], before.params["head"]["bias"])


def test_the_learning_rate_follows_the_number_of_the_step() -> None:
    rates = jnp.asarray([1.0, 10.0, 100.0])
    optimizer = optax.chain(
        optax.scale_by_adam(b1=0.0, b2=0.0), optax.scale_by_learning_rate(lambda step: rates[step])
    )
    update = jax.jit(guarded(make_update(optimizer)))
    state = state_of({"params": {"weight": jnp.zeros(2)}}, optimizer, ema=False)
    state = dataclasses.replace(state, guard=initial_guard(state.params))
    for gradient in (1.0, np.nan, 1.0):
        loss = jnp.float32(1)
        metrics = Metrics(loss, loss, loss, loss)
        state = update(state, Gradients({"weight": jnp.full(2, gradient)}, metrics, {}))
    # Without moments, each of the two updates is the learning rate of its step.
    np.testing.assert_allclose(state.params["weight"], -101.0, rtol=1e-5)
    adam, schedule = state.opt_state
    assert (int(adam.count), int(schedule.count), int(state.step)) == (2, 3, 3)


def test_the_diagnosis_names_the_gradients() -> None:
    params = {"head": {"bias": jnp.zeros(2), "kernel": jnp.zeros(2)}, "stem": jnp.zeros(2)}
    guard = {"not_finite": np.array([False, False, True, True]), "last": 7}
    assert diagnosis(guard, params) == "the gradient of head/kernel and 1 more in step 7"
    guard["not_finite"] = np.array([True, True, False, False])
    assert diagnosis(guard, params) == "the loss and the gradient of head/bias in step 7"


def test_an_overflow_halves_the_scale_and_changes_nothing_else() -> None:
    loss = make_loss(MODEL.clone(dtype=jnp.float16))
    step = jitted(make_scaled_gradients(loss), rescaled(guarded(UPDATE)))
    state = dataclasses.replace(first_state(), loss_scale=initial_loss_scale())
    too_large = {"scale": jnp.float32(2**24), "good_steps": jnp.int32(5)}
    skipped, metrics = step(dataclasses.replace(state, loss_scale=too_large), batch(), KEY)
    assert np.isfinite(metrics.loss), "only the gradients overflow"
    jax.tree.map(
        np.testing.assert_array_equal,
        everything_but_the_counters(skipped),
        everything_but_the_counters(state),
    )
    assert int(skipped.guard["skipped"]) == 1
    assert (float(skipped.loss_scale["scale"]), int(skipped.loss_scale["good_steps"])) == (2**23, 0)
    small = {"scale": jnp.float32(2**10), "good_steps": jnp.int32(5)}
    taken, _ = step(dataclasses.replace(state, loss_scale=small), batch(), KEY)
    assert int(taken.guard["skipped"]) == 0
    assert (float(taken.loss_scale["scale"]), int(taken.loss_scale["good_steps"])) == (2**10, 6)
    # A gradient in float32 differs by the rounding of float16 in each of the layers.
    exact, _ = jitted(make_gradients(make_loss(MODEL)), UPDATE)(
        dataclasses.replace(state, loss_scale={}, guard={}), batch(), KEY
    )
    moved, moved_exactly = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found.opt_state)])
        for found in (taken, exact)
    )
    assert np.linalg.norm(moved - moved_exactly) < 8 * 2**-11 * np.linalg.norm(moved_exactly)


def test_the_scale_is_that_of_flax() -> None:
    theirs = flax.training.dynamic_scale.DynamicScale(growth_interval=3, scale=jnp.float32(16))
    ours = {"scale": jnp.float32(16), "good_steps": jnp.int32(0)}
    overflows = [0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    for overflows_now in overflows:
        value = jnp.float32(np.inf if overflows_now else 1)
        theirs, finite, _, _ = theirs.value_and_grad(lambda x, value=value: x * value)(
            jnp.float32(1)
        )
        ours = next_loss_scale(ours, ~finite, growth_interval=3)
        assert float(ours["scale"]) == float(theirs.scale)
        assert int(ours["good_steps"]) == int(theirs.fin_steps)


CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=16, test_examples=8),
    checkpoint=CheckpointConfig(every_steps=1, keep_latest=100),
    batch_size=8,
    epochs=3.0,
    guard=GuardConfig(skip=True, max_in_a_row=3),
    log_every_steps=1,
)


def poisoned_run(config: TrainConfig, labels: int) -> Run:
    """Return a run whose batches with a label below ``labels`` have a target that is not finite."""
    run = Run.create(config, jax.devices()[:1])
    augment = run.dataset.augment

    def poisoned(key: jax.Array, images: jax.Array, of: jax.Array) -> Any:
        images, targets = augment(key, images, of)
        targets = jax.nn.one_hot(targets, 10)
        return images, targets.at[0].mul(jnp.where((of < labels).any(), jnp.nan, 1.0))

    return dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, augment=poisoned))


def trained(run: Run, path: Path) -> tuple[Any, list[dict[str, Any]]]:
    with Workdir(path, run.config) as workdir:
        result = train(run, workdir, Console(quiet=True), goodput=Goodput())
    return result, records(path)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_without_a_finite_step_ends_with_a_diagnosis(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError) as error:
        trained(poisoned_run(CONFIG, labels=10), tmp_path / "run")
    assert str(error.value) == (
        "3 steps in a row were skipped by step 3, because their loss or gradients were not finite: "
        "the loss and all gradients in step 3; the last checkpoint is of step 2; lower "
        "optimizer.learning_rate or lengthen schedule.warmup_epochs"
    )
    # Skipped steps are recorded without a loss.
    found = [row for row in records(tmp_path / "run") if row["kind"] == "train"]
    assert [row["skipped_steps"] for row in found] == [1, 2]
    assert "loss" not in found[0]


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_without_a_guard_ends_as_before(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, guard=GuardConfig())
    with pytest.raises(TrainingDivergedError, match="the loss became nan by step 1; the last"):
        trained(poisoned_run(config, labels=10), tmp_path / "run")


@pytest.mark.usefixtures("tiny_networks")
def test_parameters_that_are_not_finite_end_a_run_whose_loss_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(dataclasses.replace(CONFIG, guard=GuardConfig()), jax.devices()[:1])
    state = run.create_state()
    params = state.params | {"stem": jax.tree.map(lambda leaf: leaf * np.nan, state.params["stem"])}
    monkeypatch.setattr(Run, "create_state", lambda _: dataclasses.replace(state, params=params))
    with pytest.raises(
        TrainingDivergedError,
        match=r"(were not finite|became nan) by step 1; the",
    ):
        trained(run, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_float16_needs_the_guard() -> None:
    model = ModelConfig("tiny_resnet", dtype="float16")
    assert dataclasses.replace(CONFIG, model=model, guard=GuardConfig()).skips_steps
    with pytest.raises(ConfigError, match="float16 needs a guard"):
        dataclasses.replace(CONFIG, model=model, guard=GuardConfig(skip=False))
    assert not dataclasses.replace(CONFIG, guard=GuardConfig()).skips_steps
