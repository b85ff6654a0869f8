"""The command `resnet-jax train`, run as a user runs it."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from resnet_jax.commands import train
from resnet_jax.commands.main import main
from resnet_jax.config import TrainConfig, list_experiments
from resnet_jax.training import experiment
from resnet_jax.training.phases import Phase, Phases
from resnet_jax.training.process import distributed
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState
from resnet_jax.training.train_steps import TrainSteps, is_compiling
from tests import fast_compilation
from tests.training.tiny_train import GATE

pytestmark = pytest.mark.usefixtures("tiny_networks")

ROOT = Path(__file__).parents[2]
TRAIN = str(ROOT / "train.py")
TINY_TRAIN = str(ROOT / "tests" / "training" / "tiny_train.py")
# 20 steps of the default experiment with a tiny network, with checkpoints after 10 and 20.
SHORT = (
    "--model.name=tiny_resnet",
    "--epochs=0.89",
    "--schedule.warmup-epochs=0.2",
    "--checkpoint.every-steps=10",
    "--log-every-steps=1",
)


def command(*arguments: str, program: str = TINY_TRAIN) -> list[str]:
    return [sys.executable, program, *arguments]


def environment(num_devices: int) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={num_devices} {fast_compilation.FLAGS}"
    return {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        # By itself, the interpreter finds only modules in the directory of the program.
        "PYTHONPATH": str(ROOT),
    }


def run(
    *arguments: str,
    num_devices: int = 1,
    env: dict[str, str] | None = None,
    program: str = TINY_TRAIN,
) -> subprocess.CompletedProcess[str]:
    """Run `resnet-jax train` in a new process that knows the tiny networks."""
    return subprocess.run(
        command(*arguments, program=program),
        capture_output=True,
        text=True,
        env=env or environment(num_devices),
        cwd=ROOT,
        timeout=300,
        check=False,
    )


class Outcome(NamedTuple):
    """Result of a command that ran in this process, with the field names of `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Return a function that runs `resnet-jax train` in this process, on its eight devices.

    It is faster than `run`, but its run leaves its modules and its log levels behind.
    """
    # After JAX has started, the command ends its process at once after an error.
    monkeypatch.setattr(distributed, "_exit", sys.exit)
    monkeypatch.setattr(logging.getLogger("absl"), "level", logging.WARNING)

    def run_here(*arguments: str) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["train", *arguments, "--keep-freed-memory=False"])
        return Outcome(int(ended.value.code or 0), *capfd.readouterr())

    return run_here


def content(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def train_records(workdir: Path) -> list[dict[str, Any]]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [record for record in records if record["kind"] == "train"]


def final_state(workdir: Path, config: TrainConfig) -> TrainState:
    with Checkpoints(workdir / "checkpoints", config.checkpoint) as checkpoints:
        return checkpoints.restore(Run.create(config).abstract_state)[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run directory of an uninterrupted run, and its output."""
    workdir = tmp_path_factory.mktemp("train") / "straight"
    process = run(*SHORT, "--profile.steps", "3", "4", f"--workdir={workdir}", num_devices=2)
    assert process.returncode == 0, process.stderr
    return workdir, process.stdout


def test_a_run_says_what_it_does(finished: tuple[Path, str]) -> None:
    workdir, output = finished
    for fact in (
        "Training tiny_resnet on scikit-learn digits",
        "1,362 parameters",
        "2 x cpu",
        "data=2",
        "statistics of the batch",
        "64 images, 32 a device",
        "20 (0.89 epochs of 1,437 images)",
        "1,437 train, 360 test, 10 classes",
        "Compiled in ",
        "step 20/20  loss ",
        "images/s  ETA 0 s",
        "step 20/20  test: loss ",
        f"Report: {workdir / 'report.html'}",
    ):
        assert fact in output
    assert "\x1b" not in output, "no terminal codes in a file"


def test_a_run_leaves_its_records(finished: tuple[Path, str]) -> None:
    workdir, output = finished
    assert [record["step"] for record in train_records(workdir)] == list(range(1, 21))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "20"]
    assert list((workdir / "tensorboard").glob("events.out.tfevents*"))
    result = json.loads((workdir / "result.json").read_text())
    assert f"test top-1 {result['top1']:.2%}" in output
    config = json.loads((workdir / "config.json").read_text())
    assert config["epochs"] == 0.89
    assert "profile" not in config, "what is looked at does not change the run"
    shares = result["goodput"]
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares[activity] for activity in ("step", "compile", "evaluation")) > 0
    assert f"training steps {shares['step']:.1%}" in output


def test_the_report_needs_nothing_else(finished: tuple[Path, str]) -> None:
    workdir, _ = finished
    report = (workdir / "report.html").read_text()
    assert report.count("<svg") == 6, "five curves and the reliability diagram"
    assert '<table class="matrix' in report
    assert "Where the time went" in report
    time = report[report.index('<section id="time"') :].partition("</section>")[0]
    number = r'\s*<td class="number" data-value="([^"]+)">[^<]+</td>'
    rows = re.findall(rf"<tr><td>[^<]+</td>{number}{number}\s*<td>(.*?)</td></tr>", time)
    assert len(rows) == 10, "the operations that took longest in the traced steps"
    shares = [float(share) for share, *_ in rows]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1 + 1e-6
    assert any(re.search(r"stage\d/block\d/", source) for *_, source in rows)
    for reference in ('src="http', 'href="http', "<link", "url(http"):
        assert reference not in report


def test_the_report_says_what_was_run(finished: tuple[Path, str]) -> None:
    workdir, _ = finished
    report = (workdir / "report.html").read_text()
    assert "<title>tiny_resnet on scikit-learn digits</title>" in report
    facts = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", report))
    assert facts["seed"] == "0"
    assert facts["optimizer"] == "sgd, momentum 0.9, nesterov, weight decay 0.0005"
    assert facts["learning rate"] == "0.05 at its peak; cosine, warmup epochs 0.2"
    assert facts["augmentation"].startswith("rotation up to 15 degrees, scaling up to 15%")
    assert facts["command"].startswith("resnet-jax train --model.name=tiny_resnet --epochs=0.89")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", facts["date"])
    commit = re.search(r", commit ([0-9a-f]{10,})", facts["library"])
    if (ROOT / ".git").exists():
        assert commit is not None
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert head.stdout.startswith(commit[1])
    # The kernels of the first convolution, and the pixels that spoke for each wrong class.
    assert re.search(r"\b8\s+kernels of 3x3 pixels and 1 channel\.", report)
    assert report.count('class="heat"') == report.count('class="exact plain"') > 0


def test_a_complete_run_is_not_repeated(
    finished: tuple[Path, str], run_here: Callable[..., Outcome]
) -> None:
    workdir, _ = finished
    before = content(workdir)
    process = run_here(*SHORT, f"--workdir={workdir}")
    assert process.returncode == 0
    assert "is complete: top-1 " in process.stdout
    assert content(workdir) == before


def test_another_configuration_is_refused(
    finished: tuple[Path, str], run_here: Callable[..., Outcome]
) -> None:
    workdir, _ = finished
    before = content(workdir)
    process = run_here(*SHORT, f"--workdir={workdir}", "--seed=7", "--optimizer.momentum=0.8")
    assert process.returncode == 2
    assert "seed: 0 there, 7 here" in process.stderr
    assert "optimizer.momentum: 0.9 there, 0.8 here" in process.stderr
    assert content(workdir) == before


def test_killed_and_continued_equals_uninterrupted(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    straight, workdir = finished[0], tmp_path / "killed"
    arguments = (*SHORT, f"--workdir={workdir}")
    env = environment(2)
    env.pop("JAX_COMPILATION_CACHE_DIR")
    # By default, programs that compile as fast as this one are not kept in the cache.
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    process = subprocess.Popen(
        command(*arguments),
        env=env | {GATE: str(tmp_path / "gate")},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / "10").exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (workdir / "checkpoints" / "20").exists()

    compiled = content(workdir / "compilation")
    continued = run(*arguments, env=env)
    assert continued.returncode == 0, continued.stderr
    assert "Continuing from the checkpoint of step 10." in continued.stdout
    assert any(name.rpartition("/")[2].startswith("jit_train_step-") for name in compiled)
    now = content(workdir / "compilation")
    assert {name: now[name] for name in compiled} == compiled
    assert not [name for name in now.keys() - compiled.keys() if "_step-" in name], (
        "what was compiled is found again"
    )

    config = train.parse(list(arguments))[1].config
    expected, actual = (final_state(directory, config) for directory in (straight, workdir))
    assert expected.step == 20
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    # The batches come in the same order, so the losses of all steps are equal to the last bit.
    losses = {record["step"]: record["loss"] for record in train_records(workdir)}
    assert losses == {record["step"]: record["loss"] for record in train_records(straight)}


def test_a_preempted_run_saves_its_last_step_and_continues_from_it(
    finished: tuple[Path, str],
    run_here: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    straight, workdir = finished[0], tmp_path / "preempted"
    arguments = (*SHORT, f"--workdir={workdir}")
    process = subprocess.Popen(
        command(*arguments),
        env=environment(2) | {GATE: str(tmp_path / "gate")},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not (workdir / "metrics.jsonl").exists() or len(train_records(workdir)) < 3:
        assert process.poll() is None, "it ended before it could be told to"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = run_here(*arguments)
    assert second.returncode == 2
    assert f"{workdir} is in use by process {process.pid} on " in second.stderr

    process.send_signal(signal.SIGTERM)
    (tmp_path / "gate").touch()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 143, errors
    step = len(train_records(workdir))
    assert 3 <= step < 20
    assert errors == (
        f"ended by SIGTERM after step {step} of 20, which is saved; the same command continues "
        "from there\n"
    )

    continued = run(*arguments, num_devices=2)
    assert continued.returncode == 0, continued.stderr
    assert f"Continuing from the checkpoint of step {step}." in continued.stdout
    config = train.parse(list(arguments))[1].config
    expected, actual = (final_state(directory, config) for directory in (straight, workdir))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_a_run_without_its_report_is_brought_to_its_end(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    workdir = tmp_path / "copy"
    shutil.copytree(finished[0], workdir)
    result = json.loads((workdir / "result.json").read_text())
    (workdir / "result.json").unlink()
    (workdir / "report.html").unlink()
    process = run(*SHORT, f"--workdir={workdir}", num_devices=2)
    assert process.returncode == 0, process.stderr
    assert "Continuing from the checkpoint of step 20." in process.stdout
    assert (workdir / "report.html").exists()
    again = json.loads((workdir / "result.json").read_text())
    for name in ("split", "loss", "top1", "top5"):
        assert again[name] == result[name]


def test_other_networks_images_and_types_train_as_well(
    run_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    process = run_here(
        "synthetic-resnet50",
        "--model.name=tiny_bottleneck",
        "--model.dtype=bfloat16",
        "--model.drop-path-rate=0.2",
        "--model.dropout-rate=0.1",
        "--data.image-size=32",
        "--data.train-examples=32",
        "--data.test-examples=13",
        "--batch-size=8",
        f"--workdir={tmp_path / 'run'}",
    )
    assert process.returncode == 0, process.stderr
    assert "tiny_bottleneck, 73,712 parameters, bfloat16" in process.stdout
    assert "synthetic: 32 train, 13 test, 1000 classes" in process.stdout
    assert "step 4/4  test: loss " in process.stdout
    report = (tmp_path / "run" / "report.html").read_text()
    assert '<table class="matrix' not in report, "no matrix of a million cells"


def test_a_network_without_statistics_trains_in_a_run_of_one_step(
    run_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    process = run_here(
        "synthetic-resnet50",
        "--model.name=tiny_resnet_gn",
        "--data.image-size=8",
        "--data.train-examples=16",
        "--data.test-examples=4",
        "--batch-size=8",
        "--epochs=0.5",
        "--schedule.warmup-epochs=0.4",
        f"--workdir={tmp_path / 'run'}",
    )
    assert process.returncode == 0, process.stderr
    assert "step 1/1  test: loss " in process.stdout


def test_a_diverging_run_stops_with_advice_and_saves_nothing_of_it(
    run_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    process = run_here(
        "--model.name=tiny_resnet",
        "--epochs=2",
        "--schedule.warmup-epochs=0",
        "--optimizer.learning-rate=1e30",
        "--data.image-size=8",
        f"--workdir={tmp_path / 'run'}",
    )
    assert process.returncode == 2
    assert "error: the loss became nan by step" in process.stderr
    assert "lower optimizer.learning_rate" in process.stderr
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digit-resnet20",), "unknown experiment 'digit-resnet20': did you mean digits-resnet20?"),
        (("--epochs=-1",), "epochs must be above 0 and finite, but it is -1.0"),
        (("synthetic-resnet50", "--optimizer.momentum=2"), "momentum must be in [0, 1)"),
        (("--profile.steps", "9", "7"), "profile.steps must be a first step of at least 1"),
    ],
)
def test_impossible_values_are_refused_before_jax_starts(
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments, f"--workdir={tmp_path / 'run'}"])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model.name=resnet5",), "unknown model 'resnet5': did you mean resnet50"),
        (("--batch-size=100",), "batch_size 100 cannot be shared evenly by 8 devices; use 96"),
        (("--finetune.freeze", "stme"), "freeze: 'stme' matches no parameter; there are "),
        (("--profile.steps", "1", "9999"), "profile.steps (1, 9999) is out of reach: the run has"),
    ],
)
def test_impossible_values_are_refused_in_one_line(
    run_here: Callable[..., Outcome], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    process = run_here(*arguments, f"--workdir={tmp_path / 'run'}")
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: {message}")
    assert process.stderr.count("\n") == 1
    assert process.stdout == ""
    assert not (tmp_path / "run").exists()


def test_a_misspelled_option_is_answered_with_the_right_one() -> None:
    process = run("--optimizer.lerning-rate", "0.2", program=TRAIN)
    assert process.returncode == 2
    assert "--optimizer.learning-rate" in process.stdout + process.stderr


def test_help_explains_every_field_with_its_default() -> None:
    process = run("synthetic-resnet50", "--help", program=TRAIN)
    assert process.returncode == 0
    text = " ".join(process.stdout.replace("│", " ").split())
    for words in (
        "--data.image-size INT Height and width of the images in pixels. (default: 224)",
        "--optimizer.weight-decay FLOAT Weight decay",
        f"Experiments: {', '.join(list_experiments())}.",
        "(default: runs/synthetic-resnet50)",
    ):
        assert words in text


def test_an_interrupted_run_can_be_continued(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        command(*SHORT, f"--workdir={workdir}"),
        env=environment(1) | {GATE: str(tmp_path / "gate")},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (workdir / "checkpoints" / "10").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    (tmp_path / "gate").touch()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    match = re.fullmatch(
        r"interrupted by Ctrl-C after step (\d+) of \d+, which is saved; the same command "
        r"continues from there\n",
        errors,
    )
    assert match, errors
    assert (workdir / "checkpoints" / match[1]).exists()


def test_a_run_that_ends_does_not_wait_for_the_compilation_of_the_next_size(
    run_here: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends, compiled = [], threading.Event()

    def end(code: int) -> None:
        ends.append(code)
        sys.exit(code)

    def interrupted(*_: object, **__: object) -> None:
        first, second = (
            SimpleNamespace(compile_train_step=compile_step)
            for compile_step in (lambda: 0, compiled.wait)
        )
        run: Any = SimpleNamespace(
            phases=Phases((Phase(8, 4), Phase(16, 4, first_step=3)), num_examples=20),
            head_steps=0,
            total_steps=6,
            of_phase=lambda phase: second if phase.first_step else first,
        )
        assert TrainSteps(run).at(1) == 0
        raise PreemptedError("ended by SIGTERM", 143)

    monkeypatch.setattr(distributed, "_exit", end)
    monkeypatch.setattr(experiment, "train", interrupted)
    try:
        assert run_here("--workdir", str(tmp_path))[::2] == (143, "ended by SIGTERM\n")
        assert ends == [143]
    finally:
        compiled.set()
    while is_compiling():
        time.sleep(0.01)
    # Without a compilation it ends in the regular way.
    monkeypatch.setattr(experiment, "train", lambda *_, **__: None)
    assert run_here("--workdir", str(tmp_path)).returncode == 0
    assert ends == [143]
