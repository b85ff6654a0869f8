"""Trackers: what they are told, and that they never stop a run."""

import json
import logging
import re
import signal
import threading
from pathlib import Path

import pytest

from resnet_jax.report import read_metrics
from resnet_jax.training import (
    EndEvent,
    EvaluationEvent,
    StartEvent,
    StepEvent,
    train,
)
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.trackers import Tracker
from tests.training.test_hooks import CONFIG
from tests.training.trackers import FAKES, FakeTracker, PreemptedAfter, install

NAMES = list(FAKES)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def fake(name: str, monkeypatch: pytest.MonkeyPatch) -> FakeTracker:
    return install(name, monkeypatch)


def step_event(step: int) -> StepEvent:
    metrics = {"loss": 1 / step, "top1": 0.5, "top5": 0.75}
    return StepEvent(step, 6, step / 3, metrics, 0.1, 1000.0)


def session(tracker: Tracker, workdir: Path, first: int, last: int, *, ends: bool = False) -> None:
    """Call a tracker as a run does that records every second step and is evaluated after step 4."""
    tracker.on_start(StartEvent(CONFIG, workdir, first - 1, 6))
    for step in range(first, last + 1):
        if step % 2 == 0:
            tracker.on_step(step_event(step))
        if step == 4:
            metrics = {"loss": 0.5, "top1": 0.25, "top5": 1.0}
            tracker.on_evaluation(EvaluationEvent(4, 6, 4 / 3, "test", metrics, dict))
    if ends:
        report = workdir / "report.html"
        report.write_text("<p>The report</p>")
        metrics = {"loss": 0.25, "top1": 0.5, "top5": 1.0}
        tracker.on_end(EndEvent(6, 2.0, "test", metrics, dict, workdir, report, 3.5))


def end(tracker: Tracker, workdir: Path, error: Exception) -> None:
    """Call a tracker as a run does that is ended by an error after step 5."""

    def run() -> None:
        with tracker:
            session(tracker, workdir, 1, 5)
            raise error

    with pytest.raises(type(error)):
        run()


def test_a_continued_run_is_one_run_with_each_step_once(
    name: str, fake: FakeTracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workdir = tmp_path / "digits"
    workdir.mkdir()
    end(Tracker(name), workdir, ZeroDivisionError())
    # The last checkpoint was that of step 2, so that the steps after it are done again.
    with Tracker(name) as tracker:
        session(tracker, workdir, 3, 6, ends=True)
    (run,) = fake.runs.values()
    assert run.status == "finished"
    assert run.project == "resnet_jax"
    assert run.name.startswith("digits")
    assert run.values["train/loss"] == [(2, 1 / 2), (4, 1 / 4), (6, 1 / 6)]
    assert run.values["train/learning_rate"] == [(2, 0.1), (4, 0.1), (6, 0.1)]
    assert run.values["train/images_per_second"] == [(2, 1000), (4, 1000), (6, 1000)]
    assert run.values["train/epoch"] == [(step, step / 3) for step in (2, 4, 6)]
    assert run.values["test/top5"] == [(4, 1.0)]
    assert [value for _, value in run.values["result/top1"]] == [0.5]
    assert [value for _, value in run.values["result/seconds"]] == [3.5]
    assert run.artifacts == ["report.html"]
    kind = run.config["schedule"]["kind"] if name == "wandb" else run.config["schedule.kind"]
    assert kind == "cosine"
    assert caplog.records == []

    # Another run directory of the same name is another run, also for the same object.
    other = tmp_path / "other" / "digits"
    other.mkdir(parents=True)
    with tracker:
        session(tracker, other, 1, 6, ends=True)
    assert len(fake.runs) == 2


@pytest.mark.parametrize(
    ("error", "statuses"),
    [
        (PreemptedError(signal.SIGTERM, "ended"), ("preempted", "killed", "finished")),
        (OSError("the disk is full"), ("failed", "failed", "finished")),
    ],
)
def test_a_tracker_learns_how_a_run_has_ended(
    name: str, fake: FakeTracker, tmp_path: Path, error: Exception, statuses: tuple[str, ...]
) -> None:
    end(Tracker(name), tmp_path, error)
    (run,) = fake.runs.values()
    # Trackio has no states.
    assert run.status == dict(zip(("wandb", "mlflow", "trackio"), statuses, strict=True))[name]


def test_every_call_may_fail(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = install(name, monkeypatch)
    session(Tracker(name), tmp_path, 1, 6, ends=True)
    (tmp_path / "tracker.json").unlink()
    assert whole.calls >= 7
    for call in range(1, whole.calls + 1):
        fake = install(name, monkeypatch)
        fake.fails_at = call
        workdir = tmp_path / str(call)
        workdir.mkdir()
        caplog.clear()
        with Tracker(name) as tracker:
            session(tracker, workdir, 1, 6, ends=True)
        assert [record.getMessage() for record in caplog.records] == [
            f"the tracker {name} has failed, and the run goes on without it "
            "(ConnectionError: the server is gone)"
        ]
        assert fake.calls == call, "it is not called again"
        # The next session continues what was begun.
        fake.fails_at, known = 0, (workdir / "tracker.json").exists()
        expected = len(fake.runs) + (0 if known else 1)
        with Tracker(name) as tracker:
            session(tracker, workdir, 1, 6, ends=True)
        assert len(fake.runs) == expected


@pytest.mark.parametrize("hanging", [1, 3])
def test_a_tracker_that_does_not_answer_does_not_stop_the_run(
    hanging: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake, answered = install("trackio", monkeypatch), threading.Event()
    called = fake.called

    def called_slowly() -> None:
        called()
        if fake.calls == hanging:
            answered.wait()

    monkeypatch.setattr(fake, "called", called_slowly)
    with Tracker("trackio", start_timeout=0.05, end_timeout=0.05) as tracker:
        session(tracker, tmp_path, 1, 6, ends=True)
        assert [record.getMessage() for record in caplog.records] == [
            "the tracker trackio has not answered for 0.05 s; it may lack the last metrics of the "
            "run"
        ]
    assert len(caplog.records) == 1
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "trackio")
    assert thread.daemon, "the process can end"
    # When it answers after all, it gets the rest.
    answered.set()
    thread.join()
    (run,) = fake.runs.values()
    assert [step for step, _ in run.values["train/loss"]] == [2, 4, 6]
    assert run.status == "finished"


@pytest.mark.usefixtures("tiny_networks")
def test_a_whole_run_with_a_tracker_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake, workdir = install("wandb", monkeypatch), tmp_path / "run"
    with pytest.raises(PreemptedError), Tracker("wandb") as tracker:
        train(CONFIG, workdir, hooks=[tracker, PreemptedAfter(3)], quiet=True)
    (run,) = fake.runs.values()
    assert run.status == "preempted"
    fake.fails_at = fake.calls + 2
    with Tracker("wandb") as tracker:
        result = train(CONFIG, workdir, hooks=[tracker], quiet=True)
    assert result is not None
    assert json.loads((workdir / "result.json").read_text())["top1"] == result.metrics["top1"]
    records = read_metrics(workdir / "metrics.jsonl")
    losses = [(row["step"], row["loss"]) for row in records if row["kind"] == "train"]
    assert run.values["train/loss"] == losses[:3], "until it fails"
    assert [step for step, _ in losses] == [2, 3, 4, 6]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].getMessage().startswith("the tracker wandb has failed, and the run goes on")


def test_environment_variables_choose_the_project(
    name: str, fake: FakeTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_PROJECT"):
        monkeypatch.setenv(variable, "photos")
    session(Tracker(name), tmp_path, 1, 2, ends=True)
    (run,) = fake.runs.values()
    assert run.project == "photos"


def test_a_tracker_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = re.escape("the tracker trackio is not installed: pip install trackio")
    with pytest.raises(ImportError, match=message):
        Tracker("trackio")
    # The other processes do not need it.
    with monkeypatch.context() as patch:
        patch.setattr("resnet_jax.training.trackers.tracker.is_primary", lambda: False)
        Tracker("trackio")
    # A folder of that name is not the tracker.
    (tmp_path / "trackio").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=message):
        Tracker("trackio")
    with pytest.raises(ValueError, match=r"unknown tracker 'wandbb': did you mean wandb\?"):
        Tracker("wandbb")
