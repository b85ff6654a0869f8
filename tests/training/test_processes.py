"""Several real processes give the same result as one process."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_jax.config import TrainConfig
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState
from tests.comparison import tree_deviation
from tests.training import ranks
from tests.training.ranks import Rank, run

pytestmark = pytest.mark.usefixtures("tiny_networks")


# With one block of few channels, rounding shows more: the tiny network ended 3e-5 apart.
TINY = (*ranks.TINY, "--model.name=cifar_resnet8")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of one process with one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run(workdir, *TINY, processes=1)
    return workdir


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Rank]]:
    """The run directory of two processes with one device each, and the processes."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    return workdir, run(workdir, *TINY)


def records(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def final_state(workdir: Path, step: int = 6) -> TrainState:
    config = TrainConfig.from_json(json.loads((workdir / "config.json").read_text()))
    with Checkpoints(workdir / "checkpoints", config.checkpoint) as checkpoints:
        assert checkpoints.latest_step == step
        return checkpoints.restore(Run.create(config).abstract_state)[0]


def assert_same_run(workdir: Path, expected: Path) -> None:
    """Losses, evaluation, parameters and statistics agree to 1e-5, and no work is repeated."""
    ours, theirs = final_state(workdir), final_state(expected)
    assert tree_deviation(ours.params, theirs.params) < 1e-5
    assert tree_deviation(ours.batch_stats, theirs.batch_stats) < 1e-5
    assert tree_deviation(ours.opt_state, theirs.opt_state) < 1e-5
    for ours, theirs in zip(records(workdir), records(expected), strict=True):
        assert (ours["step"], ours["kind"]) == (theirs["step"], theirs["kind"])
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
        assert ours["top1"] == theirs["top1"]
    results = [json.loads((path / "result.json").read_text()) for path in (workdir, expected)]
    np.testing.assert_allclose(results[0]["loss"], results[1]["loss"], rtol=1e-5)
    assert results[0]["top1"] == results[1]["top1"]


def test_two_processes_train_as_one_does(alone: Path, two: tuple[Path, list[Rank]]) -> None:
    assert_same_run(two[0], alone)


def test_two_processes_of_four_devices_train_as_one_does(alone: Path, tmp_path: Path) -> None:
    first, _ = run(tmp_path / "run", *TINY, devices=4)
    assert "8 x cpu in 2 processes" in first.out
    assert "8 images, 1 a device" in first.out
    assert_same_run(tmp_path / "run", alone)


def test_only_the_first_process_prints_and_writes(two: tuple[Path, list[Rank]]) -> None:
    workdir, (first, second) = two
    assert "step 6/6  test: loss " in first.out
    assert f"Report: {workdir / 'report.html'}" in first.out
    assert (second.out, first.err, second.err) == ("", "", "")
    assert [record["step"] for record in records(workdir)] == [1, 2, 3, 4, 5, 6, 6]
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    assert sorted(path.name for path in workdir.iterdir()) == [
        "checkpoints", "config.json", "lock", "metrics.jsonl", "model.json", "report.html",
        "result.json", "tensorboard",
    ]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(
    alone: Path,
    two: tuple[Path, list[Rank]],
    before: int,
    after: int,
    tmp_path: Path,
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(alone if before == 1 else two[0], workdir)
    # The directory now looks as if the run had been cut off after its first checkpoint.
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "6")
    metrics = workdir / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))

    first = run(workdir, *TINY, processes=after)[0]
    assert "Continuing from the checkpoint of step 3." in first.out
    assert_same_run(workdir, alone)
