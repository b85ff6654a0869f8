"""Runs that end when the validation split gets no better, and use their best checkpoint."""

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from resnet_jax.config import (
    CheckpointConfig,
    ConfigError,
    DigitsConfig,
    EarlyStoppingConfig,
    TrainConfig,
)
from resnet_jax.training.early_stopping import BestEvaluation, best_of
from resnet_jax.training.evaluate import BatchEvaluation
from resnet_jax.training.loop import TrainResult, train
from resnet_jax.training.metrics import Metrics
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.rundir.checkpoints import CheckpointError
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState
from resnet_jax.weights.formats.checkpoints import chosen

# Validation losses after steps 2, 4, ..., 12. The best of the first five is that of step 4.
LOSSES = {2: 3.0, 4: 1.0, 6: 1.0, 8: 2.0, 10: 1.5, 12: 0.5}


@dataclasses.dataclass(frozen=True, eq=False)
class ScriptedRun(Run):
    """A run whose steps only count, and whose evaluations have the losses of `LOSSES`.

    Attributes:
        signal_at: Step in which the run is sent SIGTERM, or 0.
    """

    signal_at: int = 0

    def create_state(self) -> TrainState:
        """Return a small state."""
        return TrainState(jnp.zeros((), jnp.int32), {"weight": jnp.zeros(())}, {}, ())

    @property
    def abstract_state(self) -> TrainState:
        """Its shapes."""
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self.create_state(),
        )

    def evaluation_due(self, step: int) -> bool:
        """Every second step."""
        return step % 2 == 0

    def compile(self) -> Any:
        """Steps without a network."""

        def train_step(state: TrainState, *_: Any) -> tuple[TrainState, Metrics]:
            step = int(state.step) + 1
            if step == self.signal_at:
                signal.raise_signal(signal.SIGTERM)
            state = state.replace(step=state.step + 1, params={"weight": jnp.float32(step)})
            return state, Metrics(*[jnp.ones(())] * 4)

        def eval_step(variables: Any, drawn: Any) -> BatchEvaluation:
            loss = jnp.float32(LOSSES[int(variables["params"]["weight"])])
            size = len(drawn.index)
            metrics = Metrics(loss, jnp.ones(()), jnp.ones(()), jnp.ones(()))
            labels = np.zeros(size, np.int32)
            return BatchEvaluation(metrics, np.zeros((size, 10), np.float32), labels, drawn.mask)

        return train_step, eval_step


def scripted(config: TrainConfig, patience: int | None = 3, **fields: Any) -> ScriptedRun:
    """Return a run of twelve steps."""
    config = dataclasses.replace(
        config,
        data=DigitsConfig(image_size=8, evaluate_on="validation"),
        checkpoint=CheckpointConfig(every_steps=3, every_minutes=0.0, keep_latest=1),
        early_stopping=EarlyStoppingConfig(patience=patience, metric="loss"),
        epochs=0.7,
        log_every_steps=1,
    )
    run = Run.create(config, jax.devices()[:1])
    assert run.total_steps == 12
    own = {field.name: getattr(run, field.name) for field in dataclasses.fields(Run)}
    return ScriptedRun(**own, **fields)


def trained(run: Run, path: Path) -> TrainResult:
    with Workdir(path, run.config) as workdir:
        return train(run, workdir, Console(quiet=True), goodput=Goodput())


def evaluated(path: Path) -> list[int]:
    rows = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [row["step"] for row in rows if row["kind"] == "validation"]


def saved(path: Path) -> set[int]:
    return {int(step.name) for step in (path / "checkpoints").iterdir()}


def test_a_run_stops_after_the_last_evaluation_that_it_waits_for(
    small_config: TrainConfig, tmp_path: Path
) -> None:
    result = trained(scripted(small_config), tmp_path)
    assert evaluated(tmp_path) == [2, 4, 6, 8, 10]
    assert result.step == 4
    assert result.variables["params"]["weight"] == 4
    assert result.metrics["loss"] == 1.0
    # The best one is kept, although later ones are newer and one of them is as good.
    assert saved(tmp_path) == {4, 10}


def test_a_run_that_is_not_stopped_uses_its_best_checkpoint_too(
    small_config: TrainConfig, tmp_path: Path
) -> None:
    result = trained(scripted(small_config, patience=4), tmp_path / "4")
    assert (result.step, result.metrics["loss"]) == (12, 0.5)
    assert evaluated(tmp_path / "4") == [2, 4, 6, 8, 10, 12]
    result = trained(scripted(small_config, patience=None), tmp_path / "none")
    assert result.step == 12


@pytest.mark.parametrize("step", [4, 6, 9, 10])
def test_a_run_that_is_continued_stops_after_the_same_step(
    step: int, small_config: TrainConfig, tmp_path: Path
) -> None:
    if step < 10:
        with pytest.raises(PreemptedError, match=f"after step {step} of 12"):
            trained(scripted(small_config, signal_at=step), tmp_path)
    else:
        # The run has stopped, and is killed before it reports: the end is done again.
        trained(scripted(small_config, signal_at=step), tmp_path)
    result = trained(scripted(small_config), tmp_path)
    assert evaluated(tmp_path) == [2, 4, 6, 8, 10]
    assert result.step == 4
    assert saved(tmp_path) == {4, 10}


def test_a_best_checkpoint_that_is_damaged_is_named(
    small_config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(PreemptedError):
        trained(scripted(small_config, signal_at=9), tmp_path)
    (file,) = (tmp_path / "checkpoints" / "4").glob("_CHECKPOINT_METADATA")
    file.write_text(file.read_text().replace("best_evaluation", "west_evaluation"))
    with pytest.raises(CheckpointError, match=r"checkpoints/4 is damaged .* the run needs it"):
        trained(scripted(small_config), tmp_path)


def test_the_better_metric_is_the_best_and_the_first_of_equals_counts() -> None:
    by_loss, by_top1 = (EarlyStoppingConfig(2, metric) for metric in ("loss", "top1"))
    first = best_of(None, 5, {"loss": 1.0, "top1": 0.5}, by_loss)
    assert first == BestEvaluation(5, 1.0)
    second = best_of(first, 6, {"loss": 1.0, "top1": 0.9}, by_loss)
    assert second == BestEvaluation(5, 1.0, waited=1)
    assert not second.ends(by_loss)
    assert best_of(second, 7, {"loss": 1.1, "top1": 0.9}, by_loss).ends(by_loss)
    assert best_of(second, 7, {"loss": 0.9, "top1": 0.4}, by_loss) == BestEvaluation(7, 0.9)
    assert best_of(None, 5, {"loss": 9.0, "top1": 0.75}, by_top1) == BestEvaluation(5, 0.25)
    by_top5 = EarlyStoppingConfig(patience=2, metric="top5")
    metrics = {"loss": 9.0, "top1": 0.25, "top5": 0.75}
    assert best_of(None, 5, metrics, by_top5) == BestEvaluation(5, 0.25)
    stored = json.loads(json.dumps({"best_evaluation": second.to_json()}))
    assert BestEvaluation.from_metadata(stored) == second
    assert BestEvaluation.from_metadata({}) is None


def test_test_images_never_stop_a_run(small_config: TrainConfig) -> None:
    config = dataclasses.replace(small_config, early_stopping=EarlyStoppingConfig(patience=1))
    with pytest.raises(ConfigError, match="a test split, which must not choose a checkpoint"):
        Run.create(config)
    with pytest.raises(ConfigError, match="needs the best checkpoint"):
        dataclasses.replace(config, checkpoint=CheckpointConfig(keep_best=0))
    with pytest.raises(ConfigError, match="patience must be above 0"):
        EarlyStoppingConfig(patience=0)


def test_a_run_directory_stands_for_the_checkpoint_of_its_result(tmp_path: Path) -> None:
    for step in (4, 10):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    assert chosen(tmp_path).name == "10"
    result = tmp_path / "result.json"
    result.write_text('{"top1": 0.5}')
    assert chosen(tmp_path).name == "10"
    result.write_text('{"step": 4, "top1": 0.5}')
    assert chosen(tmp_path).name == "4"
    result.write_text('{"step": 6, "top1": 0.5}')
    with pytest.raises(ValueError, match="that of step 6, whose checkpoint is gone"):
        chosen(tmp_path)
