"""Optimizer state and averages are distributed over the devices, with the same result."""

import dataclasses
from functools import partialmethod
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from resnet_jax.config import AveragingConfig, SyntheticConfig, TrainConfig
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import fetch, make_mesh, spread
from resnet_jax.training.state import TrainState
from resnet_jax.weights.formats.digests import describe_arrays
from tests.comparison import tree_deviation
from tests.fast_compilation import DEFAULT_CODE_GENERATOR


def test_the_longest_axis_that_can_be_shared_is() -> None:
    mesh = make_mesh(jax.devices()[:8])
    for shape, axes in (
        ((3, 3, 16, 64), (None, None, None, "data")),
        ((3, 3, 64, 16), (None, None, "data")),
        ((8,), ("data",)),
        ((3, 3, 3, 10), ()),
        ((), ()),
    ):
        assert spread(shape, mesh).spec == PartitionSpec(*axes)


def test_what_is_spread_comes_back_whole() -> None:
    mesh, whole = make_mesh(jax.devices()[:8]), np.arange(48.0).reshape(3, 16)
    shared = jax.device_put({"a": whole}, spread(whole.shape, mesh))
    assert not shared["a"].is_fully_replicated
    np.testing.assert_array_equal(fetch(shared, mesh)["a"], whole)


@pytest.fixture(scope="module")
def runs(small_config: TrainConfig) -> dict[bool, Run]:
    def run(shard_optimizer: bool) -> Run:
        config = dataclasses.replace(
            small_config,
            data=SyntheticConfig(image_size=16, num_classes=10),
            batch_size=16,
            seed=1,
            averaging=AveragingConfig(decay=0.9),
            shard_optimizer=shard_optimizer,
        )
        run = Run.create(config)
        return dataclasses.replace(run, model=run.model.clone(stage_sizes=(1, 1)))

    return {shard: run(shard) for shard in (False, True)}


@pytest.fixture(scope="module")
def states(runs: dict[bool, Run]) -> dict[bool, TrainState]:
    """States after three steps on eight devices, which start from the same values."""
    initial = jax.device_get(runs[False].create_state())

    def three_steps(run: Run) -> TrainState:
        with pytest.MonkeyPatch.context() as patch:
            compile_ = partialmethod(jax.stages.Lowered.compile, DEFAULT_CODE_GENERATOR)
            patch.setattr(jax.stages.Lowered, "compile", compile_)
            train_step, _ = run.compile()
        state = run.create_state()
        assert tree_deviation(state, initial) < 1e-6
        state = jax.tree.map(lambda leaf, old: jax.device_put(leaf, old.sharding), initial, state)
        drawn = run.dataset.train.train_batches(16, seed=1, start_step=0)
        with Prefetch(drawn, run.mesh) as batches:
            for _ in range(3):
                state, _ = train_step(state, next(batches), run.step_key)
        return state

    return {shard: three_steps(run) for shard, run in runs.items()}


def bytes_on_a_device(tree: Any) -> int:
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_the_run_is_the_same_with_an_eighth_of_the_memory(states: dict[bool, TrainState]) -> None:
    replicated, sharded = states[False], states[True]
    for part in ("params", "batch_stats", "opt_state", "ema"):
        assert tree_deviation(getattr(sharded, part), getattr(replicated, part)) < 1e-6
    for part in ("opt_state", "ema"):
        whole, piece = (bytes_on_a_device(getattr(states[shard], part)) for shard in (False, True))
        # All axes but the stem's 3 channels, the head's 10 classes and scalars can be distributed.
        assert piece < 0.14 * whole
    assert bytes_on_a_device(sharded.params) == bytes_on_a_device(replicated.params)


@pytest.mark.parametrize("written", [False, True])
def test_checkpoints_go_either_way(
    runs: dict[bool, Run], states: dict[bool, TrainState], tmp_path: Path, written: bool
) -> None:
    config, state = runs[written].config.checkpoint, states[written]
    with Checkpoints(tmp_path, config) as checkpoints:
        checkpoints.save(state, badness=0.0, metadata={})
    with Checkpoints(tmp_path, config) as checkpoints:
        restored, _ = checkpoints.restore(runs[not written].abstract_state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert describe_arrays(restored) == describe_arrays(state)
    for ours, expected in zip(
        jax.tree.leaves(restored), jax.tree.leaves(states[not written]), strict=True
    ):
        assert ours.sharding.is_equivalent_to(expected.sharding, ours.ndim)
