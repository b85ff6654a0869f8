"""The command `resnet-jax train --find-lr`."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_jax.commands.main import main
from resnet_jax.training.process import distributed

pytestmark = pytest.mark.usefixtures("tiny_networks")

OPTIONS = (
    *("--find-lr", "--model.name=tiny_resnet", "--learning-rate-scaling=linear"),
    *("--range-test.lowest=1e-4", "--range-test.steps=20", "--range-test.smoothing=0.5"),
)
DIRECTORY = Path("find-lr") / "digits-resnet20-name=tiny_resnet,learning_rate_scaling=linear"

Find = Callable[..., tuple[int, str, str]]


@pytest.fixture
def find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Find:
    """Return a function that runs the command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    # After JAX has started, the command ends its process at once after an error.
    monkeypatch.setattr(distributed, "_exit", sys.exit)

    def find(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["train", *arguments, "--keep-freed-memory=False"])
        return int(ended.value.code or 0), *capfd.readouterr()

    return find


def test_a_range_test_leaves_its_curve_and_nothing_else(find: Find) -> None:
    code, output, errors = find(*OPTIONS)
    assert code == 0, errors
    title = "Learning-rate range test of tiny_resnet on scikit-learn digits"
    assert f"{title}: 20 steps of 64 images, from 0.0001 to 10\n" in output
    files = sorted(str(path) for path in Path().rglob("*") if path.is_file())
    assert files == [str(DIRECTORY / "find-lr.html"), str(DIRECTORY / "find-lr.json")]
    found = json.loads((DIRECTORY / "find-lr.json").read_text())
    assert len(found["losses"]) == len(found["learning_rates"]) == len(found["smoothed"])
    assert found["config"]["model"]["name"] == "tiny_resnet"
    # The option takes the rate before it is scaled by 64/256.
    low, high = re.findall(
        r"Try --optimizer.learning-rate (\S+) to (\S+), which learning_rate_scaling multiplies by "
        r"0\.25",
        output,
    )[0]
    tenth, steepest = found["tenth_of_minimum"], found["steepest"]
    rates = sorted([4 * tenth, 4 * steepest])
    assert [float(low), float(high)] == pytest.approx(rates, rel=0.05)
    page = (DIRECTORY / "find-lr.html").read_text()
    assert f"<title>{title}</title>" in page
    assert "Smoothed loss (nats)" in page
    assert 'id="curves"' not in page
    facts = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", page))
    assert facts["learning rate"] == "from 0.0001 to 10"
    assert facts["model"].startswith("tiny_resnet")

    code, _, errors = find(*OPTIONS)
    assert code == 2
    assert errors == (
        f"error: {DIRECTORY / 'find-lr.json'} exists; give another directory with --workdir, or "
        "replace it with --overwrite\n"
    )


def refused(find: Find, *arguments: str) -> str:
    """Return the one line with which the command refuses its options."""
    code, _, errors = find(*arguments)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    return errors


def test_the_directory_of_a_run_is_not_touched(find: Find) -> None:
    run = Path("runs") / "mine"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert "runs/mine is the directory of a run" in refused(find, *OPTIONS, "--workdir=runs/mine")
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_a_directory_that_cannot_be_made_is_refused_at_once(find: Find) -> None:
    Path("notes").write_text("")
    message = refused(find, *OPTIONS, "--workdir=notes/test")
    assert "notes is a file; give another directory with --workdir" in message


def test_a_range_test_without_images_is_refused(find: Find) -> None:
    Path("empty").mkdir()
    assert "empty" in refused(find, "folder-resnet50", "--data.path=empty", *OPTIONS)
    assert not Path("find-lr").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--overwrite",), "overwrite has an effect only on --find-lr"),
        (("--range-test.steps=50",), "range_test has an effect only on a range test"),
        (("--find-lr", "--range-test.steps=5"), "steps must be at least 20, but it is 5"),
        (
            (*OPTIONS, "--range-test.lowest=1e3", "--range-test.highest=1e6"),
            "the loss did not fall",
        ),
    ],
)
def test_impossible_range_tests_are_refused(
    find: Find, options: tuple[str, ...], message: str
) -> None:
    assert message in refused(find, *options)
