"""The composed training step of an experiment is the one that anyone would write by hand."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from resnet_jax.config import AveragingConfig, ModelConfig, SyntheticConfig, TrainConfig
from resnet_jax.data import Batch
from resnet_jax.training import setup
from resnet_jax.training.metrics import batch_metrics
from resnet_jax.training.objective import create_objective
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import TrainStep, make_train_step

pytestmark = pytest.mark.usefixtures("tiny_networks")

CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet", dropout_rate=0.1),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=16, test_examples=8),
    batch_size=8,
    epochs=1.0,
)


def hand_written(run: Run) -> TrainStep:
    """Return the training step in one function, with averages as an option."""
    objective = create_objective(run.config.loss)

    def train_step(state: TrainState, batch: Batch[jax.Array], key: jax.Array) -> Any:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        images, targets = run.dataset.augment(augment_key, batch.image, batch.label)

        def loss_fn(params: Any) -> Any:
            output: Any = run.model.apply(
                state.variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout_key},
            )
            logits, updated = output
            losses = objective(logits, targets)
            metrics = batch_metrics(logits, batch.label, losses, batch.mask)
            return jnp.mean(losses), (metrics, updated["batch_stats"])

        grads, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = run.optimizer.update(grads, state.opt_state, state.params)
        step = state.step + 1
        params = optax.apply_updates(state.params, updates)
        state = TrainState(step, params, batch_stats, opt_state, state.ema)
        if run.config.averaging.decay:
            ema: Any = optax.incremental_update(
                state.variables, state.ema, 1 - run.config.averaging.decay
            )
            state = dataclasses.replace(state, ema=ema)
        return state, metrics

    return train_step


@pytest.mark.parametrize("averaging", [AveragingConfig(), AveragingConfig(decay=0.9)])
def test_an_experiment_without_further_parts_has_the_program_of_the_plain_step(
    averaging: AveragingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(dataclasses.replace(CONFIG, averaging=averaging), jax.devices()[:1])
    ours = run.lower_train_step().as_text()
    with monkeypatch.context() as patch:
        patch.setattr(setup, "compose_train_step", lambda *_: hand_written(run))
        assert run.lower_train_step().as_text() == ours
        if not averaging.enabled:
            plain = make_train_step(run.model, run.optimizer, run.dataset.augment)
            patch.setattr(setup, "compose_train_step", lambda *_: plain)
            assert run.lower_train_step().as_text() == ours


def test_a_seed_may_have_more_than_31_bits(small_config: TrainConfig) -> None:
    run = Run.create(dataclasses.replace(small_config, seed=2**40))
    assert jax.tree.leaves(run.abstract_state)
