"""Every optimizer with scan, frozen layers, layer-wise decay, sharded states and checkpoints."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import stack_blocks, unstack_blocks
from resnet_jax.config import (
    AdamWConfig,
    CheckpointConfig,
    ClipConfig,
    CosineConfig,
    FinetuneConfig,
    LambConfig,
    LarsConfig,
    LionConfig,
    ModelConfig,
    MuonConfig,
    OptimizerConfig,
    RmspropConfig,
    SGDConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.training.optim import create_optimizer, of_head
from resnet_jax.training.optim.parameter_groups import is_kernel
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import make_mesh, state_shardings
from resnet_jax.training.state import state_of
from tests.comparison import tree_deviation

SGD = SGDConfig(weight_decay=0.1, decay="schedule")
LAMB = LambConfig(trust_clip=True, decay_on="all")
LARS = LarsConfig(learning_rate_in="update")
MUON = MuonConfig(weight_decay=0.1, scale="match_adamw", iterations=2)
OPTIMIZERS: list[OptimizerConfig] = [
    SGD,
    AdamWConfig(),
    LAMB,
    LARS,
    RmspropConfig(),
    LionConfig(),
    MUON,
]


def kind(config: OptimizerConfig) -> str:
    return config.kind


def arrays(seed: int) -> Any:
    """Return arrays of a network with a stage that ``scan`` stacks."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def block() -> Any:
        return {
            "conv1": {"kernel": draw(3, 3, 4, 8)},
            "norm1": {"scale": draw(8), "bias": draw(8)},
        }

    return {
        "stem": {"conv": {"kernel": draw(3, 3, 4, 8)}, "norm": {"scale": draw(8), "bias": draw(8)}},
        "stage1": {f"block{i}": block() for i in range(1, 6)},
        "head": {"kernel": draw(8, 3), "bias": draw(3)},
    }


PARAMS, GRADS = arrays(0), arrays(1)


def after_two_steps(optimizer: optax.GradientTransformation, params: Any, grads: Any) -> Any:
    @jax.jit
    def run(params: Any, grads: Any) -> Any:
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    return run(params, grads)


@pytest.mark.parametrize(
    ("config", "clip"),
    [
        (LAMB, ClipConfig()),
        (LARS, ClipConfig()),
        (dataclasses.replace(MUON, renormalize=True, weight_decay=0.0), ClipConfig()),
        (SGD, ClipConfig(adaptive=0.01)),
    ],
    ids=["lamb", "lars", "muon", "adaptive_clipping"],
)
def test_stacked_blocks_are_updated_as_separate_ones(
    config: OptimizerConfig, clip: ClipConfig
) -> None:
    optimizer = create_optimizer(config, 0.1, clip=clip)
    expected = after_two_steps(optimizer, PARAMS, GRADS)
    stacked = [stack_blocks({"params": tree})["params"] for tree in (PARAMS, GRADS)]
    assert "blocks" in stacked[0]["stage1"]
    ours = after_two_steps(optimizer, *stacked)
    assert tree_deviation(unstack_blocks({"params": ours})["params"], expected) < 1e-6


@pytest.mark.parametrize("config", OPTIMIZERS, ids=kind)
def test_layers_are_frozen_and_slowed_and_the_head_is_trained_alone(
    config: OptimizerConfig,
) -> None:
    freeze = ("stem", "stage1/block3/norm")

    def layer(path: tuple[str, ...]) -> int:
        """Return the number of layers above one, of the stem, five blocks and the head."""
        return 0 if path[0] == "head" else 6 - int(path[1].removeprefix("block"))

    def create(layer_decay: float) -> optax.GradientTransformation:
        return create_optimizer(
            config, 0.1, FinetuneConfig(freeze, layer_decay=layer_decay), ClipConfig(value=1.0)
        )

    @jax.jit
    def updates_of_three(params: Any, grads: Any) -> Any:
        optimizer, slowed = create(1.0), create(0.5)
        alike, state = optimizer.update(grads, optimizer.init(params), params)
        decayed, _ = slowed.update(grads, slowed.init(params), params)
        head, head_state = of_head(optimizer).update(grads, state, params)
        return alike, decayed, head, state, head_state

    alike, decayed, head, state, head_state = updates_of_three(PARAMS, GRADS)
    flat, slow = flatten_dict(alike), flatten_dict(decayed)
    for path, update in flat.items():
        if "/".join(path).startswith(freeze):
            assert not update.any()
            assert not slow[path].any()
        else:
            assert update.any(), path
            np.testing.assert_allclose(slow[path], 0.5 ** layer(path) * update, rtol=1e-6)
        assert flatten_dict(head)[path].any() == (path[0] == "head")
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(head_state), strict=True
    ):
        assert "stem" not in jax.tree_util.keystr(path), "frozen parameters have no state"
        assert np.array_equal(before, after) == ("stage1" in jax.tree_util.keystr(path))


def test_the_usual_optimizer_is_the_program_that_it_has_always_been() -> None:
    def schedule(step: jax.Array) -> jax.Array:
        return 0.1 * jnp.exp(-step)

    usual = optax.chain(
        optax.add_decayed_weights(1e-4, mask=is_kernel),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )
    ours = create_optimizer(SGDConfig(), schedule, FinetuneConfig(), ClipConfig())
    states = [jax.eval_shape(optimizer.init, PARAMS) for optimizer in (ours, usual)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    programs = [
        jax.jit(lambda *arguments, update=optimizer.update: update(*arguments))
        .lower(GRADS, states[0], PARAMS)
        .as_text()
        for optimizer in (ours, usual)
    ]
    assert programs[0] == programs[1]


def test_the_norm_of_the_gradients_of_trained_layers_is_limited() -> None:
    optimizer = create_optimizer(
        SGDConfig(1.0, momentum=0.0, nesterov=False, weight_decay=0.0),
        1.0,
        FinetuneConfig(freeze=("stage1", "stem")),
        ClipConfig(global_norm=0.5),
    )
    updates, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    head: Any = GRADS["head"]
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in head.values()))
    for name, update in updates["head"].items():
        np.testing.assert_allclose(update, -head[name] * 0.5 / norm, rtol=1e-6)


def test_the_momentum_takes_half_the_memory() -> None:
    states = [
        jax.eval_shape(create_optimizer(config, 0.1).init, PARAMS)
        for config in (SGDConfig(accumulator_dtype="bfloat16"), SGDConfig())
    ]
    half, whole = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) for state in states
    )
    assert 2 * half == whole


def test_muon_is_the_same_with_its_state_on_many_devices(tmp_path: Path) -> None:
    optimizer = create_optimizer(
        MUON, lambda step: 0.1 / (1 + step), FinetuneConfig(("stem",)), ClipConfig(global_norm=9.0)
    )
    state = state_of({"params": PARAMS}, optimizer, ema=False)
    mesh = make_mesh(jax.devices()[:8])
    sharded, replicated = (
        jax.device_put(state, state_shardings(state, mesh, shard_optimizer=shard))
        for shard in (True, False)
    )
    buffers = [leaf for leaf in jax.tree.leaves(sharded.opt_state) if leaf.ndim == 4]
    assert len(buffers) == 5
    assert not any(leaf.is_fully_replicated for leaf in buffers)

    @jax.jit
    def step(state: Any) -> Any:
        updates, opt_state = optimizer.update(GRADS, state.opt_state, state.params)
        return state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)

    sharded, replicated = step(sharded), step(replicated)
    assert tree_deviation(sharded, replicated) < 1e-5

    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(sharded, badness=None, metadata={})
        checkpoints.wait()
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
            replicated,
        )
        restored, _ = checkpoints.restore(abstract)
    jax.tree.map(np.testing.assert_array_equal, restored, sharded)


def test_the_decay_follows_the_schedule_whatever_the_batch_size() -> None:
    config = TrainConfig(
        model=ModelConfig("resnet18"),
        data=SyntheticConfig(image_size=8, num_classes=3, train_examples=64, test_examples=8),
        optimizer=SGDConfig(weight_decay=0.5, decay="schedule"),
        schedule=CosineConfig(warmup_epochs=0.0),
        learning_rate_scaling="linear",
        batch_size=64,
    )
    run = Run.create(config, jax.devices()[:1])
    assert float(run.schedule(0)) == pytest.approx(0.1 / 4)
    params = {"head": PARAMS["head"]}
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = run.optimizer.update(zeros, run.optimizer.init(params), params)
    np.testing.assert_allclose(
        updates["head"]["kernel"], -0.5 * PARAMS["head"]["kernel"], rtol=1e-6
    )
