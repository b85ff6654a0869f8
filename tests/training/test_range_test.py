"""The learning-rate range test on the digits."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.config import (
    AveragingConfig,
    ConfigError,
    DigitsConfig,
    FinetuneConfig,
    RangeTestConfig,
    StepsConfig,
    TrainConfig,
    load_experiment,
)
from resnet_jax.models.variants import _VARIANTS
from resnet_jax.report.terminal import draw_text
from resnet_jax.training.range_test import (
    RangeTest,
    RangeTestError,
    learning_rate_range_test,
    outcome_of,
    rising,
)
from tests.training.tiny_train import NETWORKS

RANGE_TEST = RangeTestConfig(steps=50, smoothing=0.9)


@pytest.fixture(scope="module")
def config() -> Iterator[TrainConfig]:
    """The experiment of the digits, with 8 layers instead of 20 and images of 8 pixels, not 12."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_VARIANTS, "cifar_resnet8", NETWORKS["cifar_resnet8"])
        digits = load_experiment("digits-resnet20").config
        yield dataclasses.replace(
            digits,
            model=dataclasses.replace(digits.model, name="cifar_resnet8"),
            data=DigitsConfig(image_size=8),
        )


def range_test(config: TrainConfig) -> RangeTest:
    # On one device, because eight of them in one CPU are slow.
    return learning_rate_range_test(config, RANGE_TEST, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def result(config: TrainConfig) -> RangeTest:
    return range_test(config)


def test_the_suggestions_are_near_the_rate_that_trains_well(
    config: TrainConfig, result: RangeTest
) -> None:
    # 0.05 was chosen on validation images. The two rules of thumb are known to differ by a factor
    # of ten, and each is right within such a factor.
    chosen = config.peak_learning_rate
    assert chosen / 20 <= result.tenth_of_minimum <= chosen * 20
    assert chosen / 20 <= result.steepest <= chosen * 20
    # The loss of ten classes begins near ln 10, does not move at the lowest rates, and falls.
    assert np.mean(result.losses[:20]) == pytest.approx(np.log(10), abs=0.5)
    assert result.smoothed.min() < result.smoothed[10] - 0.1
    assert result.learning_rates[0] == pytest.approx(1e-7)
    assert len(result.losses) == len(result.smoothed) == len(result.learning_rates)


def test_the_same_test_gives_the_same_losses_and_writes_nothing(
    config: TrainConfig, result: RangeTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The schedule, the averages and the phase of the head are not used.
    other = dataclasses.replace(
        config,
        schedule=StepsConfig(warmup_epochs=1.0),
        epochs=100.0,
        averaging=AveragingConfig(decay=0.9),
        finetune=FinetuneConfig(head_epochs=1.0),
    )
    np.testing.assert_array_equal(range_test(other).losses, result.losses)
    assert list(tmp_path.iterdir()) == []


def test_the_loss_is_smoothed_without_the_bias_of_its_start(result: RangeTest) -> None:
    average, expected = 0.0, []
    for count, loss in enumerate(result.losses, 1):
        average = 0.9 * average + 0.1 * loss
        expected.append(average / (1 - 0.9**count))
    np.testing.assert_allclose(result.smoothed, expected, rtol=1e-12)


def test_the_rate_rises_exponentially_from_end_to_end() -> None:
    schedule = rising(RangeTestConfig(steps=50))
    found = [float(schedule(step)) for step in range(50)]
    np.testing.assert_allclose(found, 10 ** np.linspace(-7, 1, 50), rtol=1e-4)


def outcome(losses: list[float], **fields: float) -> tuple[RangeTest, list[float]]:
    """Return the outcome of made-up losses without smoothing, and the losses that it left."""
    config = RangeTestConfig(
        **{"lowest": 1e-8, "highest": 1e11, "steps": 20, "smoothing": 0.0} | fields
    )
    drawn = iter(losses)
    return outcome_of(drawn, config), list(drawn)


FALLING = [3.0] * 4 + [2.9, 2.5, 2.3, 2.2, 2.3, 2.4, 2.5, 2.6]


def test_the_test_ends_when_the_loss_exceeds_a_multiple_of_its_minimum() -> None:
    result, left = outcome([*FALLING, 8.8, 8.9, 9.0, 9.1])
    assert list(result.losses) == [*FALLING, 8.8, 8.9]
    assert left == [9.0, 9.1]
    assert result.ended_early
    assert result.learning_rates[-1] == pytest.approx(1e5)
    result, left = outcome([*FALLING, 8.8, 8.9, 9.0, 9.1], stop_at=5)
    assert left == []


def test_a_loss_that_is_not_finite_ends_the_test() -> None:
    result, left = outcome([*FALLING, np.nan, 9.0])
    assert list(result.losses) == FALLING
    assert left == [9.0]


@pytest.mark.parametrize("losses", [[np.nan], [1.0, 5.0], [float(i) for i in range(20, 40)]])
def test_without_a_descent_there_is_no_suggestion(losses: list[float]) -> None:
    with pytest.raises(RangeTestError, match=r"the loss did not fall in .* range_test\.lowest"):
        outcome(losses)


def test_the_suggestions_are_the_steepest_descent_and_a_tenth_of_the_minimum() -> None:
    result, _ = outcome([*FALLING, *[3.0] * 8])
    # The rates are 1e-8, 1e-7 and so on. From the fifth to the sixth loss it falls by 0.4.
    assert result.steepest == pytest.approx(1e-4)
    assert result.tenth_of_minimum == pytest.approx(1e-2)


def test_a_fall_after_the_explosion_is_not_the_steepest_descent() -> None:
    result, _ = outcome([*FALLING[:8], 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, *[2.6] * 6])
    assert result.steepest == pytest.approx(1e-4)


def test_the_chart_marks_the_suggestions(result: RangeTest) -> None:
    chart = result.chart()
    assert chart.log_x
    curve, *marks = chart.series
    assert [(mark.name, list(mark.x)) for mark in marks] == [
        ("steepest descent", [result.steepest]),
        ("a tenth of the minimum", [result.tenth_of_minimum]),
    ]
    assert min(curve.y) <= marks[0].y[0] <= max(curve.y)
    text = draw_text(chart, width=60, height=8)
    assert text is not None
    assert "1e-07" in text.plain


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lowest": 1.0, "highest": 0.1}, r"lowest must be below highest \(0.1\)"),
        ({"lowest": 0.0}, "lowest must be above 0"),
        ({"steps": 19}, "steps must be at least 20"),
        ({"smoothing": 1.0}, r"smoothing must be in \[0, 1\)"),
        ({"stop_at": 1.0}, "stop_at must be above 1"),
    ],
)
def test_impossible_tests_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RangeTestConfig(**values)
