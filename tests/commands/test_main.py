"""The command `resnet-jax`: its subcommands, its help and its messages after mistakes."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import resnet_jax
from resnet_jax import list_models, list_pretrained
from resnet_jax.commands import models
from resnet_jax.commands.main import COMMANDS, main
from tests.commands.regenerate_models import measure


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    return int(ended.value.code or 0)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from resnet_jax.commands.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('modules', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    text, _, modules = process.stdout.rpartition("modules")
    assert "usage: resnet-jax" in text
    heavy = {"cv2", "flax", "jax", "matplotlib", "numpy", "optax", "orbax", "sklearn", "tensorflow"}
    assert not heavy & set(modules.split())


def test_help_is_wrapped_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("train", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    boxed = [line.strip("│ ") for line in lines if line.startswith("│        ")]
    # A line ends early only if the next word would not fit, or if its paragraph ends.
    for line, following in itertools.pairwise(boxed):
        ends = line.endswith(")")
        assert ends or len(line) + 1 + len(following.split()[0]) > 68, line


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    page = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*\.$", page, re.MULTILINE)
    assert run() == 0
    assert capsys.readouterr().out == page
    assert run("data") == 0
    assert "resnet-jax" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"resnet-jax {resnet_jax.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("trian",), "unknown command 'trian': did you mean resnet-jax train?"),
        (("digits-resnet20",), "did you mean resnet-jax train digits-resnet20?"),
        (("data", "discribe"), "did you mean resnet-jax data describe"),
        (("xyzzy",), f"choose from {', '.join(COMMANDS)}"),
        (("models", "resnet51"), "no network matches 'resnet51': did you mean resnet"),
        (("models", "--patern", "a"), "unknown option --patern"),
        (("weights", "resnet50"), "no published weights match 'resnet50'; try 'resnet50.*'"),
        (("data", "describe"), "SOURCE"),
        (("train", "--optimizer.lr", "0.2"), "did you mean --optimizer.learning-rate?"),
        (("train", "--epochs", "three"), "Error parsing --epochs: could not convert string"),
        (("train", "--data.kind", "movies"), "invalid choice 'movies'"),
        (
            ("train", "resnet50"),
            "did you mean cifar10-bit-resnet50 or folder-resnet50 or imagenet-resnet50 or "
            "synthetic-resnet50?",
        ),
        (
            ("train", "--epochs", "3", "cifar10-resnet20"),
            "the experiment comes first: resnet-jax train cifar10-resnet20 --epochs 3",
        ),
        (("train", "nowhere.py"), "nowhere.py is not a file"),
        (("train", "--config"), "--config needs the path of a config.json"),
        (("train", "--config", "nowhere.json"), "nowhere.json cannot be read: No such file"),
    ],
)
def test_a_mistake_gets_one_line(
    argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_the_networks_are_all_listed_with_their_costs() -> None:
    assert [row.name for row in models.rows()] == list_models()
    by_name = {row.name: row for row in models.rows()}
    for name in ("resnet18", "cifar_resnet20", "wrn_16_8"):
        assert by_name[name] == measure(name)


def test_a_pattern_selects_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "resnet18*") == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["resnet18", "resnet18d", "resnet18_ibn_a", "resnet18_ibn_b"]
    assert [line.split()[0] for line in lines[1:]] == names
    assert lines[1].split() == ["resnet18", "11,689,512", "1.81", "224"]


def test_a_pattern_selects_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights", "resnet50.tv*") == 0
    lines = capsys.readouterr().out.splitlines()
    found = list_pretrained("resnet50.tv*")
    assert [line.split()[0] for line in lines[1:]] == [weights.name for weights in found]
    assert "80.84" in lines[1]
    assert "bsd-3-clause" in lines[1]


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    with script.open("w") as file:
        subprocess.run(
            [sys.executable, "-m", "resnet_jax", "--tyro-print-completion", "bash"],
            stdout=file,
            check=True,
        )

    def complete(*words: str) -> list[str]:
        program = (
            f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); '
            '_tyro_resnet_jax; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        process = subprocess.run(
            ["bash", "-c", program, "bash", *words], capture_output=True, text=True, check=True
        )
        return process.stdout.split()

    assert complete("resnet-jax", "tr") == ["train"]
    assert {"describe", "prepare"} <= set(complete("resnet-jax", "data", ""))
    assert "--optimizer.learning-rate" in complete("resnet-jax", "train", "--optimizer.")
    kinds = complete("resnet-jax", "train", "--schedule.kind", "")
    assert {"cosine", "steps", "one-cycle"} <= {kind.replace("_", "-") for kind in kinds}
