"""The estimate of a dry run says what the run then does."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.config import (
    CosineConfig,
    ModelConfig,
    ResizingConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.models.complexity import count_macs
from resnet_jax.report import Series, read_metrics
from resnet_jax.training import train
from resnet_jax.training.estimation import Estimate, estimate, in_words
from resnet_jax.training.memory import memory_of
from resnet_jax.training.phases import Phase
from resnet_jax.training.setup import Run

CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=40, test_examples=20),
    schedule=CosineConfig(warmup_epochs=0.5),
    batch_size=8,
    epochs=2,
    log_every_steps=1,
)


@pytest.mark.usefixtures("tiny_networks")
def test_an_estimate_agrees_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = estimate(CONFIG, measure_seconds=0.0)
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    result = train(CONFIG, tmp_path / "run", quiet=True)
    assert result is not None
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    steps = [row for row in rows if row["kind"] == "train"]
    assert found.total_steps == len(steps) == 10
    assert found.images_seen == 80
    assert list(found.schedule.x) == [row["step"] for row in steps]
    np.testing.assert_allclose(found.schedule.y, [row["learning_rate"] for row in steps], rtol=1e-6)
    assert found.evaluations == sum(row["kind"] == "test" for row in rows) == 2
    assert found.num_params == sum(map(np.size, jax.tree.leaves(result.variables["params"])))
    assert found.macs == count_macs(result.run.model, (8, 8, 3))
    # On CPUs, all devices together have as many copies of parameters and momentum.
    assert found.memory is not None
    assert found.memory > jax.device_count() * 2 * 4 * found.num_params
    assert found.measured_steps == 5
    assert found.training_seconds == 10 * found.step_seconds
    assert min(found.compile_seconds, found.step_seconds, found.evaluation_seconds) > 0


def test_the_time_is_that_of_compilation_steps_and_evaluations() -> None:
    found = Estimate(
        facts={"model": "resnet50"},
        total_steps=1000,
        images_seen=256_000,
        schedule=Series("schedule", [1.0], [0.1]),
        num_params=25_557_032,
        macs=4_111_514_624,
        memory=3 * 2**30,
        available_memory=16 * 2**30,
        compile_seconds=40.0,
        step_seconds=0.5,
        measured_steps=10,
        measured_size=None,
        training_seconds=500.0,
        evaluation_seconds=20.0,
        evaluations=3,
    )
    assert found.seconds == 40 + 500 + 3 * 20
    assert in_words(found) == {
        "model": "resnet50",
        "images seen": "256,000",
        "operations": "4,111.5 million multiply-accumulates for one image",
        "memory": "3.00 GiB for a training step, 16.00 GiB available",
        "compilation": "40.0 s",
        "training": "8 min 20 s, 500.0 ms a step, measured in 10 steps",
        "evaluation": "1 min 0 s, 3 times 20.0 s",
        "estimated time": "10 min 0 s",
    }
    unknown = dataclasses.replace(found, memory=None)
    assert in_words(unknown)["memory"] == "no analysis on this platform"


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_of_several_sizes_is_scaled_from_its_last_program() -> None:
    resizing = ResizingConfig(initial_size=4, end_epoch=1, multiple_of=4, batch_sizes=((4, 64),))
    run = Run.create(dataclasses.replace(CONFIG, resizing=resizing))
    found = estimate(run.config, measure_seconds=0.0)
    first, last = run.phases.phases
    assert first == Phase(4, 64)
    assert last == Phase(8, 8, first_step=1, first_example=64)
    assert found.total_steps == 3
    # The first step has twice the pixels of the two others.
    assert found.training_seconds == pytest.approx((2 + 1 + 1) * found.step_seconds)
    assert in_words(found)["training"].endswith(", scaled from images of 8 pixels")
    largest = run.of_phase(first).lower_train_step()
    memory = memory_of(largest.compile({"xla_backend_optimization_level": 0}), run.mesh)
    assert memory is not None
    assert found.memory == memory[0]
