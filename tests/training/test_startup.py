"""The programs that a run compiles at its start."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import jax
import pytest

from resnet_jax.config import ModelConfig, SyntheticConfig, TrainConfig
from resnet_jax.training import train
from resnet_jax.training.setup import Run

pytestmark = pytest.mark.usefixtures("tiny_networks")

CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=24, test_examples=12),
    batch_size=8,
    epochs=1,
    log_every_steps=1,
)


def test_no_operation_of_a_run_is_compiled_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Programs that other tests of this process have compiled would not be compiled again.
    jax.clear_caches()
    # The context manager `jax.log_compiles` would leave out the threads.
    jax.config.update("jax_log_compiles", True)
    try:
        with caplog.at_level("WARNING"):
            train(CONFIG, tmp_path / "run", quiet=True)
    finally:
        jax.config.update("jax_log_compiles", False)
    messages = [record.getMessage() for record in caplog.records]
    names = [message.split()[1] for message in messages if message.startswith("Compiling jit(")]
    # Orbax copies one replica from several devices.
    names = [name for name in names if name != "jit(slice)"]
    assert {"jit(initialize)", "jit(train_step)", "jit(eval_step)"} <= set(names)
    # The others are the key of the run, the check of the parameters, the learning rate of a step
    # and of all steps, the copy of the variables, and the heatmaps.
    assert len(names) <= 9, names


@pytest.mark.parametrize("step", ["train", "evaluation"])
def test_an_error_of_the_compiler_ends_the_run(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(CONFIG)
    name = "lower_train_step" if step == "train" else "_lower_eval_step"

    class Failing:
        def compile(self) -> Any:
            raise RuntimeError(f"no memory for {step}")

    class Compiled:
        def compile(self) -> Any:
            return lambda *_: None

    other = "_lower_eval_step" if step == "train" else "lower_train_step"
    monkeypatch.setattr(Run, name, lambda _: Failing())
    monkeypatch.setattr(Run, other, lambda _: Compiled())
    with pytest.raises(RuntimeError, match=f"no memory for {step}"):
        run.compile()
    assert not [t for t in threading.enumerate() if t.name.startswith("compile")]


def test_shapes_and_values_of_the_state_come_from_one_trace() -> None:
    run, traced = Run.create(CONFIG), []
    initialize = type(run.model).init

    def counted(*arguments: Any, **options: Any) -> Any:
        traced.append(1)
        return initialize(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.model), "init", counted)
        shapes, state = run.abstract_state, run.create_state()
    assert len(traced) == 1
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(
        lambda leaf: leaf.shape, state
    )


def test_the_state_depends_on_the_seed_alone() -> None:
    one, same, other = (
        Run.create(dataclasses.replace(CONFIG, seed=seed)).create_state() for seed in (1, 1, 2)
    )
    kernels = [state.params["head"]["kernel"] for state in (one, same, other)]
    assert (kernels[0] == kernels[1]).all()
    assert (kernels[0] != kernels[2]).any()
