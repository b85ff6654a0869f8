"""The work of the host between steps. The steps of these tests only count."""

import dataclasses
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from resnet_jax.config import CheckpointConfig, ModelConfig, TrainConfig
from resnet_jax.data import ArraySplit, DataError
from resnet_jax.training.description import describe
from resnet_jax.training.evaluate import BatchEvaluation
from resnet_jax.training.loop import train
from resnet_jax.training.metrics import Metrics
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class CountingRun(Run):
    """A run whose steps do nothing, and that records when their metrics are fetched.

    Attributes:
        done: Number of steps that were called, in a list of one number.
        fetched: For each metric that was fetched, its step and the number of steps called by then.
    """

    done: list[int] = dataclasses.field(default_factory=lambda: [0])
    fetched: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    def create_state(self) -> TrainState:
        """Return a small state."""
        return TrainState(jnp.zeros((), jnp.int32), {"weight": jnp.ones(3)}, {}, ())

    def compile(self) -> Any:
        """Do nothing."""
        run = self

        class Sum:
            def __init__(self, step: int) -> None:
                self.step = step

            def is_ready(self) -> bool:
                return True

            def __array__(self, *_: object, **__: object) -> np.ndarray:
                run.fetched.append((self.step, run.done[0]))
                return np.float32(1)

        def train_step(state: TrainState, _: Any, __: jax.Array) -> tuple[TrainState, Any]:
            run.done[0] += 1
            return state.replace(step=state.step + 1), Metrics(*[Sum(run.done[0])] * 4)

        def eval_step(_: dict[str, Any], drawn: Any) -> BatchEvaluation:
            size = len(drawn.index)
            logits, labels = np.zeros((size, 10), np.float32), np.zeros(size, np.int32)
            return BatchEvaluation(Metrics(*[jnp.ones(())] * 4), logits, labels, drawn.mask)

        return train_step, eval_step


@pytest.fixture
def run(small_config: TrainConfig) -> CountingRun:
    """13 steps with records every 5 steps, checkpoints every 10 steps, and one evaluation."""
    config = dataclasses.replace(small_config, epochs=0.59)
    run = Run.create(config, jax.devices()[:1])
    assert run.total_steps == 13
    return CountingRun(
        **{field.name: getattr(run, field.name) for field in dataclasses.fields(Run)}
    )


def trained(run: CountingRun, path: Path) -> Goodput:
    goodput = Goodput()
    with Workdir(path, run.config) as workdir:
        train(run, workdir, Console(quiet=True), goodput=goodput)
    return goodput


def test_metrics_are_fetched_at_records_alone(run: CountingRun, tmp_path: Path) -> None:
    trained(run, tmp_path / "run")
    assert run.done == [13]
    assert sorted(set(run.fetched)) == [
        (step, next(record for record in (5, 10, 13) if record >= step)) for step in range(1, 14)
    ]
    assert len(run.fetched) == 4 * 13, "each of them once"


class SlowSplit(ArraySplit):
    """A split whose batches take 50 ms each. The batch of the last step can be made to fail."""

    fails = False

    def train_batches(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        """As in `Split`."""
        for number, drawn in enumerate(super().train_batches(*arguments, **options), start=1):
            time.sleep(0.05)
            if self.fails and number == 13:
                raise DataError("the disk is gone")
            yield drawn


def slowed(run: CountingRun) -> CountingRun:
    train_split: Any = run.dataset.train
    split = SlowSplit(train_split.images, train_split.labels)
    return dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, train=split))


def test_a_slow_input_shows_as_waiting_for_data(run: CountingRun, tmp_path: Path) -> None:
    seconds = trained(slowed(run), tmp_path / "run").seconds
    # Two of the thirteen are made before the first is asked for.
    assert seconds["data"] > 10 * 0.05
    assert seconds["data"] > 5 * seconds["step"]


def test_the_first_batch_is_drawn_while_the_steps_compile(
    run: CountingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, drawn = slowed(run), threading.Event()
    split: Any = run.dataset.train
    compiled, batches = run.compile, split.train_batches

    def train_batches(*arguments: Any, **options: Any) -> Iterator[Any]:
        drawn.set()
        return batches(*arguments, **options)

    def compile_after_the_batch() -> Any:
        assert drawn.wait(60), "no batch is drawn before the steps are compiled"
        return compiled()

    monkeypatch.setitem(split.__dict__, "train_batches", train_batches)
    monkeypatch.setitem(run.__dict__, "compile", compile_after_the_batch)
    trained(run, tmp_path / "run")
    assert run.done == [13]


def test_an_error_does_not_wait_for_a_compilation(
    run: CountingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setitem(run.__dict__, "compile", over.wait)

    def interrupted() -> TrainState:
        raise KeyboardInterrupt

    monkeypatch.setitem(run.__dict__, "create_state", interrupted)
    # If the run waits, it must not wait forever.
    timer = threading.Timer(60, over.set)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        trained(run, tmp_path / "run")
    assert not over.is_set()
    timer.cancel()
    over.set()


@pytest.mark.parametrize(
    ("model", "devices", "expected"),
    [
        ({}, 1, "statistics of the batch"),
        ({"bn_group_size": 16}, 2, "statistics of groups of 16"),
        ({"bn_group_size": "device"}, 2, "statistics of groups of 32, each device by itself"),
        ({"freeze_bn": True}, 1, "frozen"),
    ],
)
def test_the_statistics_of_batch_norm_are_named(
    model: dict[str, Any], devices: int, expected: str, small_config: TrainConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(small_config, model=ModelConfig(small_config.model.name, **model))
    run = Run.create(config, jax.devices()[:devices])
    with Workdir(tmp_path / "run", config) as workdir:
        assert describe(run, workdir)["BatchNorm"] == expected


def test_an_error_of_the_input_ends_the_run(
    run: CountingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowSplit, "fails", True)
    with pytest.raises(DataError, match="the disk is gone"):
        trained(slowed(run), tmp_path / "run")
    assert run.done == [12]


def saved_steps(path: Path) -> list[int]:
    return sorted(int(step.name) for step in (path / "checkpoints").iterdir())


def rows(path: Path) -> list[tuple[str, int]]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [(row["kind"], row["step"]) for row in map(json.loads, lines)]


def with_checkpoints(run: CountingRun, **checkpoint: Any) -> CountingRun:
    config = dataclasses.replace(run.config, checkpoint=CheckpointConfig(**checkpoint))
    return dataclasses.replace(run, config=config)


def test_the_state_is_saved_by_time_as_well(run: CountingRun, tmp_path: Path) -> None:
    # The run takes 13 batches of 50 ms each, and a checkpoint is due after 0.18 s.
    options = {"every_steps": 1000, "keep_latest": 100}
    timed = with_checkpoints(slowed(run), every_minutes=0.003, **options)
    trained(timed, tmp_path / "timed")
    steps = saved_steps(tmp_path / "timed")
    assert steps[-1] == 13
    assert 2 <= len(steps) <= 5
    # Each of them has a record, so that a continued run has the same ones from there on.
    assert {("train", step) for step in steps} <= set(rows(tmp_path / "timed"))

    never = with_checkpoints(slowed(run), every_minutes=0.0, **options)
    trained(never, tmp_path / "never")
    assert saved_steps(tmp_path / "never") == [13]


@pytest.mark.parametrize(
    ("number", "cause", "code"),
    [
        (signal.SIGINT, "interrupted by Ctrl-C", 130),
        (signal.SIGTERM, "ended by SIGTERM", 143),
    ],
)
def test_a_signal_saves_the_step_and_the_run_continues_without_doing_one_twice(
    run: CountingRun, tmp_path: Path, number: signal.Signals, cause: str, code: int
) -> None:
    previous = signal.getsignal(number)
    run = with_checkpoints(run, every_steps=4, keep_latest=100)

    class Interrupting(type(run)):
        def compile(self) -> Any:
            train_step, eval_step = super().compile()

            def interrupting(*arguments: Any) -> Any:
                if self.done == [6]:
                    signal.raise_signal(number)
                return train_step(*arguments)

            return interrupting, eval_step

    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    with pytest.raises(PreemptedError) as error:
        trained(Interrupting(**fields), tmp_path / "run")
    assert str(error.value) == (
        f"{cause} after step 7 of 13, which is saved; the same command continues from there"
    )
    assert error.value.exit_code == code
    assert saved_steps(tmp_path / "run") == [4, 7]
    assert signal.getsignal(number) is previous

    # As after a crash, the file has rows of steps after the last checkpoint.
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "kind": "train", "loss": 1.0}\n{"step": 10, "ki')
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        run.create_state(),
    )
    continued = dataclasses.replace(run, done=[7])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CountingRun, "abstract_state", abstract)
        trained(continued, tmp_path / "run")
    assert rows(tmp_path / "run") == [
        ("train", 4), ("train", 5), ("train", 7),
        ("train", 8), ("train", 10), ("train", 12), ("train", 13), ("test", 13),
    ]  # fmt: skip


def test_the_second_ctrl_c_leaves_at_once(run: CountingRun, tmp_path: Path) -> None:
    class Stuck(type(run)):
        def compile(self) -> Any:
            _, eval_step = super().compile()

            def stuck(*_: Any) -> Any:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                raise AssertionError("it goes on")

            return stuck, eval_step

    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    with pytest.raises(KeyboardInterrupt):
        trained(Stuck(**fields), tmp_path / "run")
    assert saved_steps(tmp_path / "run") == []
