"""When checkpoints are due, for one process and for several that must agree."""

import dataclasses
from typing import Any

import jax
import pytest

from resnet_jax.config import CheckpointConfig, EarlyStoppingConfig, TrainConfig
from resnet_jax.training import saving
from resnet_jax.training.evaluate import Evaluation
from resnet_jax.training.saving import Saver
from resnet_jax.training.setup import Run


class Clock:
    """A clock that is set from outside, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Saved:
    """Checkpoints that only record what would be saved."""

    latest_step = None

    def __init__(self) -> None:
        self.badness: list[float | None] = []

    def save(self, state: Any, *, badness: float | None, metadata: dict[str, Any]) -> None:
        """Record the badness of a checkpoint."""
        del state
        assert metadata.keys() == {"config", "model", "data"}
        self.badness.append(badness)


@pytest.fixture
def saver(small_config: TrainConfig) -> tuple[Saver, Clock]:
    """The saver of a run that saves every 10 steps and every minute."""
    checkpoint = CheckpointConfig(every_steps=10, every_minutes=1.0)
    run = Run.create(dataclasses.replace(small_config, checkpoint=checkpoint), jax.devices()[:1])
    clock, checkpoints = Clock(), Saved()
    return Saver(run, checkpoints, clock), clock  # pyrefly: ignore


def test_steps_and_minutes_count_from_the_last_checkpoint(saver: tuple[Saver, Clock]) -> None:
    due, clock = saver
    assert [step for step in range(1, 23) if due.due(step, recorded=False)] == [10, 20, 22]
    clock.now = 59.9
    assert not due.due(3, recorded=False)
    clock.now = 60.0
    assert due.due(3, recorded=False)
    metrics: Any = saving.Metrics(4.0, 1.0, 2.0, 2.0)
    due.add([metrics])
    due.save(None, 3, None)  # pyrefly: ignore
    assert due._checkpoints.badness == [2.0]
    assert not due.due(4, recorded=True)
    clock.now = 120.0
    assert due.due(5, recorded=True)


@pytest.mark.parametrize("answer", ["now", "later"])
def test_several_processes_go_by_the_clock_of_the_first(
    saver: tuple[Saver, Clock], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    due, clock = saver
    asked: list[tuple[str, str]] = []

    def from_primary(name: str, value: str) -> str:
        asked.append((name, value))
        return answer

    monkeypatch.setattr(saving.jax, "process_count", lambda: 2)
    monkeypatch.setattr(saving, "from_primary", from_primary)
    clock.now = 1000.0 if answer == "later" else 0.0
    # Between records the processes do not communicate, so no process saves by time.
    assert not due.due(3, recorded=False)
    assert asked == []
    assert due.due(4, recorded=True) == (answer == "now")
    assert asked == [("save/4", "now" if answer == "later" else "later")]
    # All processes count the same steps.
    assert due.due(10, recorded=False)
    assert len(asked) == 1


@pytest.mark.parametrize(("metric", "badness"), [("top1", 0.75), ("top5", 0.5), ("loss", 2.5)])
def test_the_best_checkpoint_is_chosen_by_a_metric_of_the_validation_split(
    saver: tuple[Saver, Clock], metric: Any, badness: float
) -> None:
    run = saver[0]._run
    config = dataclasses.replace(run.config, early_stopping=EarlyStoppingConfig(metric=metric))
    dataset = dataclasses.replace(run.dataset, evaluation_split="validation")
    saved: Any = Saved()
    ours = Saver(dataclasses.replace(run, config=config, dataset=dataset), saved)
    nothing: Any = None
    ours.save(nothing, 1, None)
    arrays: Any = (None, None, None)
    ours.save(nothing, 2, Evaluation({"loss": 2.5, "top1": 0.25, "top5": 0.5}, *arrays))
    assert saved.badness == [None, badness], "without an evaluation it is none of the best"
