"""Checkpoints: which ones are kept, what is restored, and what is refused."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_jax.config import CheckpointConfig
from resnet_jax.training.rundir.checkpoints import CheckpointError, Checkpoints
from resnet_jax.training.sharding import batch_sharded, make_mesh, replicated
from resnet_jax.training.state import TrainState
from resnet_jax.weights.formats.digests import describe_arrays

CONFIG = CheckpointConfig(keep_latest=2, keep_best=1)


def make_state(step: int, *, width: int = 4, dtype: jnp.dtype = jnp.float32) -> TrainState:
    """Return a state of incompressible values that depend on the step."""
    kernel = jax.random.normal(jax.random.key(step), (3, width), dtype)
    params = {"conv": {"kernel": kernel}, "norm": {"scale": jnp.full(width, 0.1 + step)}}
    optimizer = optax.sgd(optax.constant_schedule(0.1), momentum=0.9)
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats={"norm": {"mean": jax.random.normal(jax.random.key(step + 1), (width,))}},
        opt_state=optimizer.init(params),
    )


def abstract(state: TrainState, num_devices: int = 1) -> TrainState:
    sharding = replicated(make_mesh(jax.devices()[:num_devices]))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state
    )


def test_the_latest_and_the_best_stay(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.latest_step is None
        # No save may be skipped because the one before it is still being written.
        for step, badness in enumerate([5.0, 1.0, 3.0, 4.0, 7.0], start=1):
            checkpoints.save(make_state(step), badness=badness, metadata={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5"]
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.latest_step == 5


@pytest.mark.parametrize("num_devices", [1, 8])
def test_values_and_metadata_come_back_on_any_number_of_devices(
    tmp_path: Path, num_devices: int
) -> None:
    state, metadata = make_state(3), {"data": {"next_batch": 3}, "config": {"seed": 0}}
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(state, badness=0.0, metadata=metadata)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        restored, restored_metadata = checkpoints.restore(abstract(state, num_devices))
    assert restored_metadata == metadata
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert ours.dtype == theirs.dtype
        assert len(ours.sharding.device_set) == num_devices
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("before", "after"), [(8, 2), (2, 8)])
def test_fewer_and_more_devices_go_on_with_the_same_values(
    tmp_path: Path, before: int, after: int
) -> None:
    expected = make_state(3)
    state = jax.device_put(expected, replicated(make_mesh(jax.devices()[:before])))
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(state, badness=0.0, metadata={})
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        restored, _ = checkpoints.restore(abstract(state, after))
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert len(ours.sharding.device_set) == after
        np.testing.assert_array_equal(ours, theirs)


def test_a_digest_is_that_of_the_values_however_they_are_spread() -> None:
    mesh = make_mesh()
    array = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    spread, whole = (
        jax.device_put(array, sharding) for sharding in (batch_sharded(mesh), replicated(mesh))
    )
    assert len({shard.device for shard in spread.addressable_shards}) == 8
    assert spread.addressable_shards[0].data.shape == (2, 3)
    assert describe_arrays({"x": spread}) == describe_arrays({"x": whole})
    assert describe_arrays({"x": spread}) == describe_arrays({"x": array})


def test_a_state_may_be_overwritten_while_it_is_being_saved(tmp_path: Path) -> None:
    state = make_state(1)
    expected = jax.device_get(state)
    double = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 2, state), donate_argnums=0)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(state, badness=0.0, metadata={})
        for _ in range(20):
            state = double(state)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        restored, _ = checkpoints.restore(abstract(make_state(1)))
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_state(1, width=5), r"params/conv/kernel is float32\[3, 4\] in it, float32\[3, 5\]"),
        # Orbax itself would cast silently.
        (make_state(1, dtype=jnp.bfloat16), r"float32\[3, 4\] in it, bfloat16\[3, 4\] here"),
        (make_state(1).replace(batch_stats={}), r"batch_stats/norm/mean is .* in it, absent here"),
    ],
)
def test_a_state_of_another_shape_is_refused_by_name(
    tmp_path: Path, other: TrainState, message: str
) -> None:
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(make_state(1), badness=0.0, metadata={})
    with (
        Checkpoints(tmp_path, CONFIG) as checkpoints,
        pytest.raises(CheckpointError, match=message),
    ):
        checkpoints.restore(abstract(other))
