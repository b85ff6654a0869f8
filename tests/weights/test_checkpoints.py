"""Weights are loaded from checkpoints of Flax's ImageNet example and of our own runs."""

import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import ResNet, create_model, load_weights
from resnet_jax.config import CheckpointConfig, SGDConfig
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.state import TrainState, state_of
from tests.comparison import deviation
from tests.variables import random_variables
from tests.weights.flax_example import FlaxExample

SIZES = (2, 1, 2)
SMALL: dict[str, Any] = {"stage_sizes": SIZES, "width": 8, "num_classes": 7}


@pytest.fixture(scope="module", params=[False, True], ids=["basic", "bottleneck"])
def example(request: pytest.FixtureRequest) -> tuple[FlaxExample, ResNet, dict[str, Any]]:
    """Return a network of the example with random statistics, and our network."""
    theirs = FlaxExample(SIZES, request.param, num_classes=7, width=8)
    ours = create_model("resnet50" if request.param else "resnet18", padding="same", **SMALL)
    return theirs, ours, random_variables(theirs, jnp.zeros((1, 32, 32, 3)))


def applied(model: Any, variables: Any, images: jax.Array, train: bool) -> Any:
    """Return logits and new statistics; the whole network is compiled at once."""
    return jax.jit(lambda *a: model.apply(*a, train=train, mutable=["batch_stats"]))(
        variables, images
    )


# The sizes are odd and even, because "SAME" pads them differently.
@pytest.mark.parametrize("size", [32, 47])
@pytest.mark.parametrize("train", [False, True])
def test_logits_of_the_flax_example_are_ours(
    example: tuple[FlaxExample, ResNet, dict[str, Any]], size: int, train: bool
) -> None:
    theirs, ours, variables = example
    images = jax.random.normal(jax.random.key(1), (3, size, size, 3))
    expected, expected_stats = applied(theirs, variables, images, train)
    loaded = load_weights(ours, variables)
    logits, stats = applied(ours, loaded, images, train)
    assert deviation(logits, expected) < 1e-5
    if train:
        again = load_weights(ours, {"params": variables["params"], **expected_stats})
        for (path, mine), their in zip(
            jax.tree_util.tree_leaves_with_path(stats["batch_stats"]),
            jax.tree.leaves(again["batch_stats"]),
            strict=True,
        ):
            assert deviation(mine, their) < 1e-5, path
    # With symmetric padding, the logits differ.
    if size == 32 and not train:
        symmetric, _ = applied(ours.clone(padding="symmetric"), loaded, images, train)
        assert deviation(symmetric, expected) > 1e-3


@pytest.mark.parametrize("orbax", [False, True])
@pytest.mark.parametrize("era", ["2021", "2024"])
def test_checkpoints_that_flax_writes_are_read(
    example: tuple[FlaxExample, ResNet, dict[str, Any]], tmp_path: Path, orbax: bool, era: str
) -> None:
    _, ours, variables = example
    import flax
    from flax.training import checkpoints

    params, stats = variables["params"], variables["batch_stats"]
    state: dict[str, Any] = (
        {"step": 5, "optimizer": {"target": params}, "model_state": {"batch_stats": stats}}
        if era == "2021"
        else {"step": 5, "params": params, "batch_stats": stats, "opt_state": {"trace": params}}
    )
    flax.config.update("flax_use_orbax_checkpointing", orbax)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in (3, 12):
            written = jax.tree.map(lambda leaf, step=step: leaf * (step / 12), state)
            checkpoints.save_checkpoint(str(tmp_path), written, step, keep=3)
    expected = load_weights(ours, variables)
    # A directory stands for its newest checkpoint, and a checkpoint can be named.
    for source in (tmp_path, tmp_path / "checkpoint_12"):
        loaded = load_weights(ours, source)
        jax.tree.map(np.testing.assert_array_equal, loaded, expected)
    older = load_weights(ours, tmp_path / "checkpoint_3")
    np.testing.assert_array_equal(
        older["params"]["head"]["bias"], expected["params"]["head"]["bias"] * np.float32(0.25)
    )


def test_networks_that_do_not_fit_the_example_are_refused(
    example: tuple[FlaxExample, ResNet, dict[str, Any]],
) -> None:
    _, ours, variables = example
    with pytest.raises(ValueError, match=r"\d unexpected \(batch_stats/\w+Block_3/BatchNorm_0"):
        load_weights(ours.clone(stage_sizes=(1, 1, 1)), variables)
    with pytest.raises(ValueError, match=r"missing \(layer3\.2\.bn1"):
        load_weights(ours.clone(stage_sizes=(2, 1, 3)), variables)
    strange = {**variables, "params": {**variables["params"], "Conv_7": {"kernel": np.ones(3)}}}
    with pytest.raises(ValueError, match=r": 1 unexpected \(params/Conv_7/kernel\)$"):
        load_weights(ours, strange)


def test_padding_as_in_tensorflow_is_for_plain_networks_only() -> None:
    for name in ("resnetblur18", "resnetv2_50x1_bit"):
        with pytest.raises(ValueError, match="padding='same' is for networks of plain"):
            jax.eval_shape(
                partial(create_model(name, padding="same").init, train=False),
                jax.random.key(0),
                jnp.zeros((1, 64, 64, 3)),
            )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResNet, TrainState, Path]:
    """Return a run directory with checkpoints of steps 1 and 2."""
    model = create_model("cifar_resnet20", width=8, stage_sizes=(1, 1))
    workdir = tmp_path_factory.mktemp("run")
    variables = random_variables(model, jnp.zeros((1, 16, 16, 3)))
    state = state_of(variables, create_optimizer(SGDConfig(), 0.1), ema=False)
    with Checkpoints(workdir / "checkpoints", CheckpointConfig()) as checkpoints:
        for step in (1, 2):
            state = state.replace(
                step=jnp.asarray(step), params=jax.tree.map(lambda leaf: 2 * leaf, state.params)
            )
            checkpoints.save(state, badness=0.0, metadata={})
    return model, state, workdir


def test_a_run_of_ours_is_a_source(run: tuple[ResNet, TrainState, Path]) -> None:
    model, state, workdir = run
    for source in (workdir, str(workdir), workdir / "checkpoints", workdir / "checkpoints" / "2"):
        loaded = load_weights(model, source)
        jax.tree.map(np.testing.assert_array_equal, loaded, jax.device_get(state.variables))
    before = load_weights(model, workdir / "checkpoints" / "1")["params"]["head"]["bias"]
    np.testing.assert_array_equal(2 * before, state.params["head"]["bias"])


def test_its_head_can_be_left_behind(run: tuple[ResNet, TrainState, Path]) -> None:
    model, state, workdir = run
    with pytest.raises(ValueError, match=r"fc\.weight has shape \(16, 10\)"):
        load_weights(model.clone(num_classes=3), workdir)
    loaded = load_weights(model.clone(num_classes=3), workdir, new_head=True)
    assert loaded["params"]["head"]["kernel"].shape == (16, 3)
    np.testing.assert_array_equal(
        loaded["params"]["stem"]["conv"]["kernel"], state.params["stem"]["conv"]["kernel"]
    )


def test_variables_of_ours_are_a_source(run: tuple[ResNet, TrainState, Path]) -> None:
    model, state, _ = run
    loaded = load_weights(model.clone(in_channels=1), jax.device_get(state.variables))
    kernel = state.params["stem"]["conv"]["kernel"]
    np.testing.assert_allclose(
        loaded["params"]["stem"]["conv"]["kernel"], kernel.sum(axis=2, keepdims=True), rtol=1e-6
    )


def test_a_directory_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: there is no checkpoint in it"):
        load_weights(create_model("resnet18"), tmp_path)
    (tmp_path / "7").mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path / '7'}: not an Orbax checkpoint"):
        load_weights(create_model("resnet18"), tmp_path)


def test_a_damaged_list_of_arrays_is_named_in_one_line(
    run: tuple[ResNet, TrainState, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, _, workdir = run
    damaged = tmp_path / "1"
    shutil.copytree(workdir / "checkpoints" / "1", damaged)
    (file,) = damaged.rglob("_METADATA")
    file.write_bytes(b"XXXX" + file.read_bytes()[4:])
    with pytest.raises(ValueError, match=f"{damaged}: the checkpoint is damaged, its list of arr"):
        load_weights(model, damaged)
    # Orbax also warns of it.
    assert not caplog.records


def test_a_truncated_msgpack_is_named(tmp_path: Path) -> None:
    from flax.serialization import msgpack_serialize

    file = tmp_path / "checkpoint_1"
    content = msgpack_serialize({"params": {"conv_init": {"kernel": np.ones((7, 7, 3, 8))}}})
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{file}: truncated or damaged"):
        load_weights(create_model("resnet18"), file)
    file.write_bytes(msgpack_serialize({"step": 3}))
    with pytest.raises(ValueError, match="there are no params in it"):
        load_weights(create_model("resnet18"), file)
