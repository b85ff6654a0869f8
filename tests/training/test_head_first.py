"""Runs that train the head first and the whole network after it."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from rich.console import Console

from resnet_jax.config import (
    AveragingConfig,
    ConfigError,
    CosineConfig,
    EarlyStoppingConfig,
    FinetuneConfig,
    ModelConfig,
    SGDConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.models.variants import _VARIANTS
from resnet_jax.training.description import describe
from resnet_jax.training.loop import train
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import shard_batch
from resnet_jax.training.state import TrainState
from tests.training.tiny_train import NETWORKS

pytestmark = pytest.mark.usefixtures("tiny_networks")

# Six steps, three of which train the head.
CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=16, test_examples=8),
    optimizer=SGDConfig(learning_rate=0.1),
    schedule=CosineConfig(warmup_epochs=0.5),
    finetune=FinetuneConfig(head_epochs=1.5),
    batch_size=8,
    epochs=3.0,
    averaging=AveragingConfig(decay=0.5),
    log_every_steps=1,
)


def run_of(**changes: Any) -> Run:
    return Run.create(dataclasses.replace(CONFIG, **changes), jax.devices()[:1])


def test_early_stopping_and_the_second_phase_change_no_program() -> None:
    optimizer = optax.sgd(0.1, momentum=0.9)
    programs = [
        dataclasses.replace(run, optimizer=optimizer).lower_train_step().as_text()
        for run in (run_of(), run_of(finetune=FinetuneConfig()))
    ]
    assert programs[0] == programs[1]
    config = dataclasses.replace(CONFIG, finetune=FinetuneConfig())
    plain = Run.create(config, jax.devices()[:1])
    stopping = dataclasses.replace(config, early_stopping=EarlyStoppingConfig(patience=2))
    stopped = dataclasses.replace(plain, config=stopping)
    assert plain.lower_train_step().as_text() == stopped.lower_train_step().as_text()


def test_the_head_alone_needs_no_backward_pass_of_the_rest() -> None:
    run = run_of(averaging=AveragingConfig())

    def flops(lowered: Any) -> float:
        return lowered.cost_analysis()["flops"]

    head, whole = (flops(run.lower_train_step(head_only=only)) for only in (True, False))
    forward = flops(run._lower_eval_step())
    assert head < 1.2 * forward
    assert whole > 2.5 * forward


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"finetune": FinetuneConfig(head_epochs=1.5, freeze=("stem",), layer_decay=0.5)},
        {"averaging": AveragingConfig(), "model": ModelConfig("tiny_resnet_gn")},
    ],
    ids=["batch_norm", "frozen_stem", "group_norm"],
)
def test_only_the_head_changes_at_first_and_everything_after(changes: dict[str, Any]) -> None:
    run = run_of(**changes)
    assert (run.head_steps, run.total_steps) == (3, 6)
    state = run.create_state()
    batches = run.dataset.train.train_batches(8, seed=0, start_step=0)

    def step(state: TrainState, compiled: Any) -> TrainState:
        return compiled(state, shard_batch(next(batches), run.mesh), run.step_key)[0]

    def changed(before: Any, after: Any) -> set[str]:
        """Return the layers that differ, of parameters, statistics and momentum."""
        return {
            next(key.key for key in path if getattr(key, "key", None) in run.abstract_state.params)
            for (path, old), new in zip(
                jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
            )
            if not np.array_equal(old, new)
        }

    def parts(state: TrainState) -> Any:
        momentum = [
            leaves
            for leaves in jax.tree.leaves(
                state.opt_state, is_leaf=lambda node: isinstance(node, optax.TraceState)
            )
            if isinstance(leaves, optax.TraceState)
        ]
        return jax.device_get((state.params, state.batch_stats, momentum))

    head_step = run.compile_head_step()
    first = parts(state)
    for _ in range(2):
        state = step(state, head_step)
    second = parts(state)
    assert changed(first, second) == {"head"}
    train_step, _ = run.compile()
    state = step(step(state, train_step), train_step)
    frozen = {"stem"} if "finetune" in changes else set()
    assert changed(second, parts(state)) == set(run.abstract_state.params) - frozen
    assert int(state.step) == 4


def test_the_schedule_begins_after_the_head() -> None:
    run = run_of()
    rates = [float(run.schedule(step)) for step in range(7)]
    without = run_of(finetune=FinetuneConfig(), epochs=1.5)
    assert rates[:3] == pytest.approx([0.1] * 3)
    assert rates[4] > 0
    assert rates[3:] == [float(without.schedule(step)) for step in range(4)]
    assert rates[3] == 0


class Interrupted(Run):
    """A run that is sent SIGTERM in a given step."""

    step = 0

    def compile(self) -> Any:
        """Return the steps, the first of which sends the signal."""
        train_step, eval_step = super().compile()
        return self._interrupting(train_step), eval_step

    def compile_head_step(self) -> Any:
        """Return the step of the head, which sends the signal."""
        return self._interrupting(super().compile_head_step())

    def _interrupting(self, compiled: Any) -> Any:
        def step(state: TrainState, *arguments: Any) -> Any:
            if int(state.step) + 1 == self.step:
                signal.raise_signal(signal.SIGTERM)
            return compiled(state, *arguments)

        return step


def variables_after(run: Run, path: Path) -> Any:
    with Workdir(path, run.config) as workdir:
        result = train(run, workdir, Console(quiet=True), goodput=Goodput())
    assert result.step == 6
    return jax.device_get(result.variables)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_VARIANTS, "tiny_resnet", NETWORKS["tiny_resnet"])
        return variables_after(run_of(), tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("step", [2, 5])
def test_a_run_continues_bit_for_bit_in_both_phases(
    step: int, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of()
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(Run)}
    monkeypatch.setattr(Interrupted, "step", step)
    with pytest.raises(PreemptedError, match=f"after step {step} of 6"):
        variables_after(Interrupted(**fields), tmp_path / "run")
    found = variables_after(run, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, found, uninterrupted)


def test_the_header_names_the_phase(tmp_path: Path) -> None:
    run = run_of()
    with Workdir(tmp_path / "run", run.config) as workdir:
        assert describe(run, workdir)["head first"] == "3 steps (1.5 epochs), BatchNorm frozen"


def test_impossible_phases_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"head_epochs \(3\) must be below epochs \(3\)"):
        dataclasses.replace(CONFIG, finetune=FinetuneConfig(head_epochs=3.0))
    with pytest.raises(ConfigError, match="trains only the head, which freeze"):
        FinetuneConfig(head_epochs=1.0, freeze=("stem", "head"))
    with pytest.raises(ConfigError, match="head_epochs must be finite and not below 0"):
        FinetuneConfig(head_epochs=-1.0)
