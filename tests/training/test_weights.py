"""Training that starts from published weights."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from resnet_jax import create_model, load_weights, save_weights, training
from resnet_jax.config import AveragingConfig, ConfigError, TrainConfig
from resnet_jax.training import loop, network, setup, starting_weights
from resnet_jax.training.description import describe
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from resnet_jax.training.starting_weights import read_starting_weights, starting_variables
from resnet_jax.weights.dialects.torch import to_state_dict, torch_rules
from tests.variables import random_variables


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for color images of seven classes. The digits are gray and have ten classes."""
    model = create_model("cifar_resnet32", num_classes=7)
    variables = random_variables(model, np.zeros((1, 8, 8, 3), np.float32))
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(model, variables, path)
    return path


def starting_from(config: TrainConfig, source: object, **model: Any) -> TrainConfig:
    model = {"weights": str(source)} | model
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


@pytest.mark.parametrize("scan", [False, True])
def test_a_run_starts_from_weights(small_config: TrainConfig, source: Path, scan: bool) -> None:
    config = starting_from(small_config, source, name="cifar_resnet32", scan=scan)
    run = Run.create(
        dataclasses.replace(config, averaging=AveragingConfig(decay=0.9), shard_optimizer=True)
    )
    state = run.create_state()
    expected = load_weights(
        create_model("cifar_resnet32", num_classes=10, in_channels=1, scan=scan),
        source,
        new_head=True,
    )
    fresh = jax.device_get(state.params.pop("head"))
    del expected["params"]["head"]
    assert fresh["kernel"].shape == (64, 10)
    assert fresh["kernel"].std() > 0
    jax.tree.map(np.testing.assert_array_equal, state.variables, expected)
    jax.tree.map(
        np.testing.assert_array_equal,
        state.ema,
        {**expected, "params": {**expected["params"], "head": fresh}},
    )
    state.params["head"] = fresh
    for leaf, abstract in zip(
        jax.tree.leaves(state.opt_state), jax.tree.leaves(run.abstract_state.opt_state), strict=True
    ):
        assert leaf.sharding == abstract.sharding
    assert int(state.step) == 0


def test_the_header_says_where_it_starts(small_config: TrainConfig, tmp_path: Path) -> None:
    run = Run.create(starting_from(small_config, "hf://timm/x", weights_prefix="teacher."))
    with Workdir(tmp_path / "run", run.config) as workdir:
        facts = describe(run, workdir)
    assert facts["starts from"] == "hf://timm/x, 'teacher.'"


def test_a_wrong_source_is_refused_in_one_line(small_config: TrainConfig, tmp_path: Path) -> None:
    model = create_model(small_config.model.name)
    absent = starting_from(small_config, tmp_path / "absent.pth")
    with pytest.raises(ConfigError, match=r"model\.weights .*: there is no such file") as error:
        read_starting_weights(absent.model, model)
    assert "\n" not in str(error.value)
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    other = starting_from(small_config, tmp_path / "other.npz")
    with pytest.raises(ConfigError, match=r"do not fit the model: .* 1 unexpected \(x\)"):
        read_starting_weights(other.model, model)


def test_one_of_several_networks_is_chosen(small_config: TrainConfig, tmp_path: Path) -> None:
    model = create_model(small_config.model.name, num_classes=7)
    variables = random_variables(model, np.zeros((1, 8, 8, 3), np.float32))
    tensors = to_state_dict(variables, torch_rules(model))
    teacher = {f"teacher.{name}": array for name, array in tensors.items()}
    student = {f"student.{name}": array + 1 for name, array in tensors.items()}
    np.savez(tmp_path / "weights.npz", **teacher, **student)
    both = starting_from(small_config, tmp_path / "weights.npz").model
    with pytest.raises(ConfigError, match=r"'student\.', 'teacher\.'; choose .*weights-prefix"):
        read_starting_weights(both, model)
    chosen = dataclasses.replace(both, weights_prefix="teacher.")
    loaded = starting_variables(chosen, read_starting_weights(chosen, model), model)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_a_run_that_is_continued_needs_no_weights(
    small_config: TrainConfig, tmp_path: Path
) -> None:
    config = starting_from(
        dataclasses.replace(small_config, epochs=0.2), tmp_path / "absent.safetensors"
    )
    run = Run.create(config, jax.devices()[:1])
    scratch = dataclasses.replace(
        run, config=dataclasses.replace(config, model=small_config.model)
    ).create_state()
    with (
        Workdir(tmp_path / "run", config) as workdir,
        loop.Checkpoints(workdir.checkpoints, config.checkpoint) as checkpoints,
    ):
        metadata = {"data": {"fingerprint": run.dataset.fingerprint}}
        checkpoints.save(scratch, badness=0.0, metadata=metadata)
        checkpoints.wait()
        continued, _ = loop._first_state(run, checkpoints, Console(quiet=True))
    jax.tree.map(np.testing.assert_array_equal, continued.params, scratch.params)


def test_the_program_ends_before_it_opens_the_data(tmp_path: Path) -> None:
    options = ["--model.weights", str(tmp_path / "absent.pth"), "--workdir", str(tmp_path / "run")]
    process = subprocess.run(
        [sys.executable, "-m", "resnet_jax", "train", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: model.weights ")
    assert "there is no such file" in line
    assert not (tmp_path / "run").exists()


def test_weights_are_read_once_and_the_network_is_built_once_before_the_data_are_opened(
    small_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "weights.safetensors", list[str]()
    model = create_model(small_config.model.name, num_classes=7)
    images = np.zeros((1, 8, 8, 3), np.float32)
    save_weights(model, random_variables(model, images), path)

    for module, name in (
        (network, "create_model"),
        (starting_weights, "read_source"),
        (setup, "open_dataset"),
    ):
        function = getattr(module, name)

        def noted(
            *arguments: Any, function: Any = function, name: str = name, **options: Any
        ) -> Any:
            calls.append(name)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, noted)
    config = starting_from(dataclasses.replace(small_config, epochs=0.05), path)
    assert training.train(config, tmp_path / "run", quiet=True) is not None
    assert calls == ["create_model", "read_source", "open_dataset"]

    # Weights of another network are refused before the data are opened.
    calls.clear()
    other = starting_from(config, path, name="cifar_resnet32")
    with pytest.raises(ConfigError, match="do not fit the model"):
        training.train(other, tmp_path / "other", quiet=True)
    assert calls == ["create_model", "read_source"]
    assert not (tmp_path / "other").exists()
