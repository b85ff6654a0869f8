"""The experiment that a command line names, and the directory of its run."""

import ast
import json
from pathlib import Path

import pytest

from resnet_jax.commands.arguments import UsageError
from resnet_jax.commands.train import Arguments, parse
from resnet_jax.config import (
    ClipConfig,
    ConfigError,
    CosineConfig,
    FolderConfig,
    LambConfig,
    LarsConfig,
    LinearConfig,
    StepsConfig,
    TriangularConfig,
    list_experiments,
    load_experiment,
)

ROOT = Path(__file__).parents[2]
OWN = '''"""My digits: a test."""

import dataclasses

from resnet_jax.config import load_experiment

CONFIG = dataclasses.replace(load_experiment("digits-resnet20").config, epochs=7)
'''


def arguments(*argv: str) -> Arguments:
    return parse(list(argv))[1]


def workdir(*argv: str) -> str:
    return str(arguments(*argv).workdir)


def test_every_file_of_configs_is_an_experiment() -> None:
    files = sorted((ROOT / "configs").glob("*.py"))
    assert list_experiments() == sorted(file.stem.replace("_", "-") for file in files)
    for name in list_experiments():
        assert load_experiment(name).summary.endswith((".", "?"))


def test_an_experiment_imports_nothing_but_configurations() -> None:
    for file in (ROOT / "configs").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module == "resnet_jax.config", file
            elif isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= {"dataclasses", "math"}, file


def test_a_file_of_the_user_is_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "my_digits.py"
    path.write_text(OWN)
    name, ours = parse([str(path), "--batch-size", "32"])
    assert name == "my-digits"
    assert (ours.config.epochs, ours.config.batch_size) == (7, 32)
    assert ours.config.model == load_experiment("digits-resnet20").config.model
    assert str(ours.workdir) == "runs/my-digits-batch_size=32"
    assert load_experiment(path).summary == "My digits: a test."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a = 1\nb = c\n", r"own\.py, line 2: NameError: name 'c' is not defined"),
        ("a = (\n", r"own\.py, line 1: '\(' was never closed"),
        ("a = 1\n", r"own\.py does not define CONFIG; an experiment sets CONFIG to a TrainConfig"),
        ("CONFIG = 1\n", r"own\.py defines another kind of CONFIG"),
        (
            "from resnet_jax.config import SGDConfig\nSGDConfig(momentum=2)\n",
            r"own\.py: momentum must be in \[0, 1\)",
        ),
        (
            OWN.replace("epochs=7", 'learning_rate_scaling="sqrt"'),
            r"own\.py: learning_rate_scaling must be one of 'none', 'linear', 'square_root', but",
        ),
    ],
)
def test_a_faulty_file_gets_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as raised:
        load_experiment(path)
    assert "\n" not in str(raised.value)


def test_a_resolved_configuration_is_trained_again(tmp_path: Path) -> None:
    first = arguments("cifar10-resnet20", "--seed", "3", "--schedule.decay-epochs", "5", "9")
    path = tmp_path / "first" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(first.config.to_json()))
    name, again = parse(["--config", str(path)])
    assert (name, again.config) == ("first", first.config)
    assert str(again.workdir) == "runs/first"
    assert workdir(f"--config={path}", "--seed", "4") == "runs/first-seed=4"
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"config\.json: model is missing"):
        parse(["--config", str(path)])


def test_the_kind_of_a_union_is_chosen_by_an_option(tmp_path: Path) -> None:
    ours = arguments("--schedule.kind", "steps", "--schedule.decay-epochs", "10", "20").config
    before = load_experiment("digits-resnet20").config
    assert isinstance(before.schedule, CosineConfig)
    # A field that both kinds have keeps a value that is not its default.
    assert ours.schedule == StepsConfig(warmup_epochs=2.0, decay_epochs=(10.0, 20.0))
    ours = arguments("--schedule.kind", "triangular", "--schedule.end", "0.1").config
    assert ours.schedule == TriangularConfig(warmup_start=0.2, end=0.1)
    points = ("--schedule.points", "4", "1.0", "6", "0.5")
    ours = arguments("--schedule.kind", "linear", *points).config
    assert ours.schedule == LinearConfig(2.0, points=((4.0, 1.0), (6.0, 0.5)))
    ours = arguments("--data.kind=folder", f"--data.path={tmp_path}", "--optimizer.kind=sgd").config
    assert ours.data == FolderConfig(str(tmp_path))
    assert ours.optimizer == before.optimizer


def test_another_optimizer_has_its_own_learning_rate() -> None:
    ours = arguments("--optimizer.kind", "lamb", "--optimizer.trust-clip", "True").config
    assert ours.optimizer == LambConfig(trust_clip=True)
    given = ("--optimizer.learning-rate=1", "--optimizer.kind=lars", "--clip.global-norm=2")
    assert arguments(*given).config.optimizer == LarsConfig(learning_rate=1.0)
    assert arguments(*given).config.clip == ClipConfig(global_norm=2.0)
    with pytest.raises(UsageError, match=r"did you mean --optimizer\.trust-clip\?"):
        arguments("--optimizer.kind", "lamb", "--optimizer.trust-clp", "True")
    with pytest.raises(UsageError, match=r"unknown option --optimizer\.trust-clip"):
        arguments("--optimizer.kind", "adamw", "--optimizer.trust-clip", "True")


def test_every_field_of_the_network_is_an_option() -> None:
    model = arguments(
        *("--model.act", "silu", "--model.norm", "group", "--model.in-channels", "1"),
        *("--model.output-stride", "8", "--model.small-input", "True"),
    ).config.model
    assert (model.act, model.norm, model.in_channels) == ("silu", "group", 1)
    assert (model.output_stride, model.small_input) == (8, True)


def test_runs_that_differ_have_directories_that_differ() -> None:
    assert workdir() == workdir("digits-resnet20") == "runs/digits-resnet20"
    assert workdir("--seed", "0", "--epochs", "25") == "runs/digits-resnet20"
    assert workdir("--seed", "1") == "runs/digits-resnet20-seed=1"
    sweep = ("--optimizer.learning-rate", "0.2", "--epochs", "5")
    assert workdir(*sweep) == "runs/digits-resnet20-learning_rate=0.2,epochs=5"
    assert workdir(*sweep[2:], *sweep[:2]) == workdir(*sweep), "the order does not matter"
    steps = ("--schedule.kind=steps", "--schedule.decay-epochs", "10", "20.5")
    assert workdir(*steps) == "runs/digits-resnet20-schedule.kind=steps,decay_epochs=10_20.5"
    # TFDS data sets also have a field `name`.
    named = workdir("cifar10-resnet20", "--model.name", "resnet18")
    assert named == "runs/cifar10-resnet20-model.name=resnet18"


def test_a_value_that_is_no_file_name_is_told_apart_by_a_digest() -> None:
    one = workdir("folder-resnet50", "--data.path", "/a/photos")
    other = workdir("folder-resnet50", "--data.path", "/b/photos")
    assert one.startswith("runs/folder-resnet50-path=photos-")
    assert one.removesuffix(one[-8:]) == other.removesuffix(other[-8:])
    assert one != other
    assert workdir("folder-resnet50", "--data.path", "photos") == "runs/folder-resnet50-path=photos"
    long = workdir("--finetune.freeze", *(f"stage{i}" for i in range(99)))
    assert len(long.rpartition("/")[2]) < 150


def test_what_does_not_change_the_result_does_not_change_the_directory() -> None:
    assert workdir("--watchdog-timeout", "9", "--profile.steps", "3", "4") == "runs/digits-resnet20"
    assert workdir("--keep-freed-memory", "False") == "runs/digits-resnet20"


def test_a_directory_that_is_given_is_used() -> None:
    assert workdir("--workdir", "elsewhere", "--seed", "1") == "elsewhere"
    given = ("--workdir", "runs/digits-resnet20", "--seed", "1")
    assert workdir(*given) == "runs/digits-resnet20"
