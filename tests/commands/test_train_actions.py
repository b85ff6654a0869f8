"""Options of `resnet-jax train` that do something else than to train: a preview, a dry run."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from resnet_jax.commands.main import main

pytestmark = pytest.mark.usefixtures("tiny_networks")

TINY = (
    "synthetic-resnet50",
    "--model.name=tiny_resnet",
    "--data.image-size=8",
    "--data.train-examples=24",
    "--data.test-examples=16",
    "--batch-size=8",
    "--keep-freed-memory=False",
)


class Outcome(NamedTuple):
    """Result of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Return a function that runs `resnet-jax train` in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def train(*arguments: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["train", *arguments])
        return Outcome(int(ended.value.code or 0), *capsys.readouterr())

    return train


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_preview_is_a_file_and_nothing_else(
    train: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = train(*TINY, "--preview", "--preview-images", "3")
    assert outcome == (0, "Preview: synthetic-resnet50-preview.html\n", "")
    assert files(tmp_path) == ["synthetic-resnet50-preview.html"]
    page = (tmp_path / "synthetic-resnet50-preview.html").read_text()
    assert page.count("<img ") == 2 * 3
    assert "<dt>command</dt><dd>resnet-jax train synthetic-resnet50 --model.name" in page

    # A file that exists is not replaced.
    path = tmp_path / "mine.html"
    path.write_text("mine")
    outcome = train(*TINY, "--preview", "mine.html")
    assert outcome.code == 2
    assert outcome.err == (
        "error: mine.html exists; give another path, or replace it with --overwrite\n"
    )
    assert path.read_text() == "mine"
    assert train(*TINY, "--preview=mine.html", "--overwrite").code == 0
    assert path.read_text() != "mine"


def test_a_dry_run_prints_and_writes_nothing(train: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = train(*TINY, "--dry-run", "--epochs=2", "--schedule.warmup-epochs=0.5")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.rstrip() for line in outcome.out.splitlines()]
    facts = dict(line.split(maxsplit=1) for line in lines if line and line[0].isalpha())
    assert facts["model"].startswith("tiny_resnet, ")
    assert facts["steps"] == "6 (2 epochs of 24 images)"
    assert facts["images"].split()[-1] == "48"
    assert facts["memory"].endswith(" GiB available")
    assert "measured in 5 steps" in facts["training"] or "measured in 6 steps" in facts["training"]
    assert facts["evaluation"].partition(", ")[2].startswith("2 times ")
    plot = lines[lines.index("Learning rate") + 1 :]
    assert len(plot) == 9
    assert plot[-1].endswith("step")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--preview", "--dry-run"),
            "--preview and --dry-run exclude each other; give one of them",
        ),
        (
            ("--dry-run", "--distributed.auto", "True"),
            "--dry-run works in one process; leave --distributed out",
        ),
        (("--preview", "--tracker=wandb"), "tracker has no effect with --preview; leave it out"),
        (("--find-lr", "--tracker=wandb"), "tracker has no effect with --find-lr; leave it out"),
        (("--dry-run", "--profile.steps", "1", "2"), "profile has no effect with --dry-run; leave"),
        (("--dry-run", "--workdir=runs/x"), "workdir has no effect with --dry-run; leave it out"),
        (("--preview-images=3",), "preview_images has an effect only on --preview; add it"),
        (("--preview", "--preview-images=0"), "preview_images must be above 0, not 0"),
        (("--preview", "no/such/page.html"), "no/such/page.html cannot be written: there is no"),
        (("--preview", "--model.name=resnet51"), "unknown model 'resnet51'"),
        (("--dry-run", "--batch-size=9"), "batch_size 9 cannot be shared evenly by 8 devices"),
        (("--dry-run", "--model.weights=gone.safetensors"), "gone.safetensors"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(
    train: Callable[..., Outcome], tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    outcome = train(*TINY, *options)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert files(tmp_path) == []
