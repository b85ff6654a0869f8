"""The learning rate of a run: scaled by the batch size, described, and drawn from the schedule."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_jax.config import (
    CosineConfig,
    FinetuneConfig,
    LinearConfig,
    ModelConfig,
    SGDConfig,
    StepsConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.training.description import describe, shortened_warmup
from resnet_jax.training.learning_rate import learning_rate_curve
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run

pytestmark = pytest.mark.usefixtures("tiny_networks")

# Three epochs of four steps each.
CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=32, test_examples=8),
    optimizer=SGDConfig(learning_rate=0.1),
    schedule=CosineConfig(warmup_epochs=0.5),
    batch_size=8,
    epochs=3.0,
)


def run_of(**changes: Any) -> Run:
    return Run.create(dataclasses.replace(CONFIG, **changes))


@pytest.mark.parametrize(
    ("rule", "batch_size", "peak", "text"),
    [
        ("none", 1024, 0.1, "0.1 at its peak"),
        ("linear", 1024, 0.4, "0.1 x 1024/256 = 0.4 at its peak"),
        ("linear", 64, 0.025, "0.1 x 64/256 = 0.025 at its peak"),
        ("square_root", 1024, 0.2, "0.1 x sqrt(1024/256) = 0.2 at its peak"),
    ],
)
def test_the_peak_is_scaled_by_the_batch_size(
    tmp_path: Path, rule: Any, batch_size: int, peak: float, text: str
) -> None:
    run = run_of(
        learning_rate_scaling=rule,
        batch_size=batch_size,
        data=dataclasses.replace(CONFIG.data, train_examples=4096),
        finetune=FinetuneConfig(head_epochs=1.0),
        schedule=CosineConfig(warmup_epochs=1.0),
    )
    assert run.config.peak_learning_rate == pytest.approx(peak)
    # The head trains at the peak, and so does the first step after the warm-up.
    steps = 4096 // batch_size
    assert [float(run.schedule(at)) for at in (0, 2 * steps)] == pytest.approx([peak, peak])
    with Workdir(tmp_path / "run", run.config) as workdir:
        described = describe(run, workdir)["learning rate"]
    assert described == f"{text}; cosine, warmup epochs 1"


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (CosineConfig(), "cosine, warmup epochs 5"),
        (
            CosineConfig(2, None, 0.1, warmup_prefix=False, granularity="epoch", end=0.01),
            "cosine, granularity epoch, warmup epochs 2, warmup start 0.1, end 0.01, no warmup "
            "prefix",
        ),
        (CosineConfig(warmup_steps=1000), "cosine, warmup steps 1000"),
        (
            StepsConfig(warmup_epochs=0, decay_epochs=(1.0, 2.5)),
            "steps, warmup epochs 0, decay epochs 1 to 2.5, decay factor 0.1",
        ),
        (
            LinearConfig(warmup_epochs=1, points=((1.5, 1.0), (2.0, 0.5))),
            "linear, warmup epochs 1, points (1.5, 1) to (2, 0.5)",
        ),
    ],
)
def test_a_schedule_is_described_by_its_main_fields_and_its_changes(
    tmp_path: Path, schedule: Any, text: str
) -> None:
    run = run_of(schedule=schedule)
    with Workdir(tmp_path / "run", run.config) as workdir:
        assert describe(run, workdir)["learning rate"] == f"0.1 at its peak; {text}"


def test_a_warm_up_of_too_many_steps_is_shortened_and_announced() -> None:
    run = run_of(schedule=CosineConfig(warmup_steps=1000), epochs=10.0)
    assert shortened_warmup(run) == (
        "The warm-up takes 4 steps instead of 1000, because the run has only 40."
    )
    assert [float(run.schedule(at)) for at in (0, 4)] == pytest.approx([0.0, 0.1])
    assert shortened_warmup(run_of(schedule=CosineConfig(warmup_steps=10))) is None


def test_the_curve_of_a_run_is_its_schedule() -> None:
    run = run_of(
        schedule=StepsConfig(warmup_epochs=0, decay_epochs=(1.0, 2.0)),
        finetune=FinetuneConfig(head_epochs=0.5),
    )
    curve = learning_rate_curve(run)
    assert list(curve.x) == list(range(1, 13))
    # Two steps for the head, then four of each rate.
    np.testing.assert_allclose(curve.y, [0.1] * 6 + [0.01] * 4 + [0.001] * 2, rtol=1e-6)
    assert list(learning_rate_curve(run, 5).y) == list(curve.y[:5])
    # A constant schedule is a number, and still a curve.
    flat = run_of(schedule=StepsConfig(warmup_epochs=0, decay_epochs=()))
    np.testing.assert_allclose(learning_rate_curve(flat).y, np.full(12, 0.1), rtol=1e-6)


def test_the_curve_of_a_long_run_has_a_thousand_points() -> None:
    data = dataclasses.replace(CONFIG.data, train_examples=80_000)
    curve = learning_rate_curve(run_of(data=data))
    assert len(curve.x) == 1000
    assert (curve.x[0], curve.x[-1]) == (1, 30_000)
