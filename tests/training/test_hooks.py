"""Hooks: when they are called, with what, and what happens if they raise errors."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import (
    CheckpointConfig,
    CosineConfig,
    ModelConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.report import read_metrics
from resnet_jax.training import (
    EndEvent,
    EvaluationEvent,
    Hook,
    StartEvent,
    StepEvent,
    TrainResult,
    train,
)
from resnet_jax.training.hooks import RunHooks

pytestmark = pytest.mark.usefixtures("tiny_networks")

# Six steps of eight images, with records after 2, 3, 4 and 6, and evaluations after 3 and 6.
CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=24, test_examples=16),
    schedule=CosineConfig(warmup_epochs=0.4),
    checkpoint=CheckpointConfig(every_steps=2),
    batch_size=8,
    epochs=2,
    log_every_steps=2,
)


class Recorder(Hook):
    """Keeps all events, and the variables of evaluations."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.variables: list[Any] = []
        self.files: list[str] = []

    def on_start(self, event: StartEvent) -> None:
        """Keep it."""
        self.events.append(event)

    def on_step(self, event: StepEvent) -> None:
        """Keep it."""
        self.events.append(event)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Keep it, with its variables."""
        self.events.append(event)
        self.variables.append(event.variables())

    def on_end(self, event: EndEvent) -> None:
        """Keep it, with the files that exist."""
        self.events.append(event)
        self.files = [path.name for path in event.workdir.iterdir()]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorder, TrainResult, Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        from resnet_jax.models.variants import _VARIANTS
        from tests.training.tiny_train import NETWORKS

        for name, fields in NETWORKS.items():
            monkeypatch.setitem(_VARIANTS, name, fields)
        hook, workdir = Recorder(), tmp_path_factory.mktemp("hooks") / "run"
        result = train(CONFIG, workdir, hooks=[hook], quiet=True)
    assert result is not None
    return hook, result, workdir


def test_hooks_are_called_at_the_records(recorded: tuple[Recorder, TrainResult, Path]) -> None:
    hook, result, workdir = recorded
    assert [(type(event), event.step) for event in hook.events] == [
        (StartEvent, 0),
        (StepEvent, 2),
        (StepEvent, 3),
        (EvaluationEvent, 3),
        (StepEvent, 4),
        (StepEvent, 6),
        (EvaluationEvent, 6),
        (EndEvent, 6),
    ]
    start, end = hook.events[0], hook.events[-1]
    assert start == StartEvent(CONFIG, workdir, 0, 6)
    assert end.metrics == result.metrics
    assert end.epoch == 2
    assert end.workdir == workdir
    assert "report.html" in hook.files
    assert "result.json" not in hook.files, "a hook that fails at the end is called again"


def test_events_have_what_is_recorded(recorded: tuple[Recorder, TrainResult, Path]) -> None:
    hook, result, workdir = recorded
    steps = [event for event in hook.events if isinstance(event, StepEvent)]
    rows = [row for row in read_metrics(workdir / "metrics.jsonl") if row["kind"] == "train"]
    for event, row in zip(steps, rows, strict=True):
        assert event.metrics == {name: row[name] for name in ("loss", "top1", "top5")}
        assert event.learning_rate == row["learning_rate"]
        assert event.learning_rate == float(result.run.schedule(event.step - 1))
        assert event.images_per_second == row["images_per_second"]
        assert event.epoch == row["epoch"]
        assert event.total_steps == 6


def test_an_evaluation_comes_with_its_variables(
    recorded: tuple[Recorder, TrainResult, Path],
) -> None:
    hook, result, _ = recorded
    run, split = result.run, result.run.dataset.evaluation
    images = jnp.asarray(np.stack([split.image(i) for i in range(len(split))]))
    evaluations = [event for event in hook.events if isinstance(event, EvaluationEvent)]
    for event, variables in zip(evaluations, hook.variables, strict=True):
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(variables))
        logits: Any = run.model.apply(variables, run.dataset.prepare(images), train=False)
        loss = -np.mean(np.asarray(jax.nn.log_softmax(logits))[np.arange(16), split.labels])
        assert event.metrics["loss"] == pytest.approx(loss, rel=1e-4)
        assert event.split == "test"
    # The variables of the first one are copies, which the later steps have not overwritten.
    assert evaluations[0].metrics["loss"] != evaluations[1].metrics["loss"]
    last = hook.events[-1].variables()
    jax.tree.map(np.testing.assert_array_equal, last, hook.variables[-1])


class Failing(Hook):
    """Raises an error after step 4."""

    def on_step(self, event: StepEvent) -> None:
        """Raise it."""
        if event.step == 4:
            raise ZeroDivisionError("the hook has a bug")


def test_an_error_in_a_hook_ends_the_run_and_loses_no_step(
    recorded: tuple[Recorder, TrainResult, Path], tmp_path: Path
) -> None:
    _, expected, _ = recorded
    with pytest.raises(ZeroDivisionError, match="the hook has a bug") as raised:
        train(CONFIG, tmp_path / "run", hooks=[Failing()], quiet=True)
    assert raised.traceback[-1].name == "on_step"
    # The same call without the bug continues after the step of the error.
    hook = Recorder()
    result = train(CONFIG, tmp_path / "run", hooks=[hook], quiet=True)
    assert result is not None
    assert [event.step for event in hook.events] == [4, 6, 6, 6]
    for ours, theirs in zip(
        jax.tree.leaves(result.variables), jax.tree.leaves(expected.variables), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    # A complete run calls no hook.
    again = Recorder()
    assert train(CONFIG, tmp_path / "run", hooks=[again], quiet=True) is None
    assert again.events == []


class FailingAtTheEnd(Hook):
    """Raises an error at the end."""

    def on_end(self, event: EndEvent) -> None:
        """Raise it."""
        raise OSError(f"{event.report} cannot be sent")


def test_an_error_at_the_end_leaves_a_run_to_be_completed(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=0.3)
    with pytest.raises(OSError, match="cannot be sent"):
        train(config, tmp_path / "run", hooks=[FailingAtTheEnd()], quiet=True)
    assert (tmp_path / "run" / "report.html").exists()
    hook = Recorder()
    assert train(config, tmp_path / "run", hooks=[hook], quiet=True) is not None
    assert [type(event) for event in hook.events] == [StartEvent, EndEvent]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["step"] == 1


def test_what_is_not_a_hook_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for wrong in (print, Recorder, object()):
        hooks: Any = [wrong]
        with pytest.raises(
            TypeError, match=r"is not a hook, which has the methods on_start, on_st"
        ):
            train(CONFIG, tmp_path / "run", hooks=hooks, quiet=True)
    assert not (tmp_path / "run").exists()


def test_one_of_several_processes_calls_the_hooks(
    recorded: tuple[Recorder, TrainResult, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, result, _ = recorded
    hook = Recorder()
    monkeypatch.setattr("resnet_jax.training.hooks.is_primary", lambda: False)
    hooks = RunHooks([hook], result.run, tmp_path)
    hooks.start(0)
    hooks.step(1, {"loss": 1.0, "learning_rate": 0.1, "images_per_second": 1.0})
    hooks.evaluation(1, {"loss": 1.0}, {})
    assert hook.events == []
