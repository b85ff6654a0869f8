"""The seed and the global batch decide a run, and the number of devices does not.

The suite compares 8 devices with 1; `tests/nightly/device_counts.py` compares 2 and 4 as well.

Sums in another order differ in the last bit.  Within a few steps the difference stays at 1e-6,
unless it moves an activation across the kink of ReLU.  A gradient then jumps, as it does between
any two orders of summation on one device.  Noise images and blocks that start as the identity
mostly avoid this, and seed 1 does for any number of devices.  With seeds 0 and 2 one activation
crosses the kink.
"""

import dataclasses

import jax
import numpy as np
import pytest

from resnet_jax.config import SyntheticConfig, TrainConfig
from resnet_jax.training.metrics import mean_metrics
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import shard_batch
from resnet_jax.training.state import TrainState
from tests.comparison import tree_deviation

Outcome = tuple[list[float], TrainState]


def five_steps(config: TrainConfig, num_devices: int) -> Outcome:
    run = Run.create(config, jax.devices()[:num_devices])
    train_step, _ = run.compile()
    state = run.create_state()
    batches = run.dataset.train.train_batches(config.batch_size, seed=config.seed, start_step=0)
    losses = []
    for _ in range(5):
        state, metrics = train_step(state, shard_batch(next(batches), run.mesh), run.step_key)
        losses.append(mean_metrics([metrics])["loss"])
    for leaf in jax.tree.leaves(state):
        assert len(leaf.sharding.device_set) == num_devices
    return losses, jax.device_get(state)


@pytest.fixture(scope="module")
def config(small_config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(
        small_config, data=SyntheticConfig(image_size=16, num_classes=10), batch_size=32, seed=1
    )


@pytest.fixture(scope="module")
def one_device(config: TrainConfig) -> Outcome:
    return five_steps(config, 1)


def test_the_number_of_devices_changes_nothing(config: TrainConfig, one_device: Outcome) -> None:
    assert_same(five_steps(config, 8), one_device)


def assert_same(outcome: Outcome, expected_outcome: Outcome) -> None:
    (losses, state), (expected_losses, expected) = outcome, expected_outcome
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert tree_deviation(state.params, expected.params) < 1e-5
    assert tree_deviation(state.batch_stats, expected.batch_stats) < 1e-5
