"""Lines are where their values are."""

import re

import numpy as np
import pytest

from resnet_jax.report.charts import SIDE, LineChart, Series, draw, smoothed


def points(path: str) -> np.ndarray:
    """Return the points of an SVG path, float[N, 2]."""
    return np.array([[float(number) for number in pair.split()] for pair in path[1:].split("L")])


def test_a_line_goes_through_its_values() -> None:
    chart = LineChart("y", "x", [Series("a", [0, 50, 100], [0.0, 5.0, 10.0])], from_zero=True)
    drawn = draw(chart)
    assert drawn is not None
    path = points(drawn.lines[0].raw)
    np.testing.assert_allclose(path[:, 0], [0, SIDE / 2, SIDE])
    # The axis is 5 % longer than the values, and down is positive in SVG.
    np.testing.assert_allclose(path[:, 1], SIDE * (1 - np.array([0, 5, 10]) / 10.5), atol=0.05)
    # A tick is where a value of its label would be.
    positions = {tick.label: tick.position for tick in drawn.y_ticks}
    assert positions["5.0" if "5.0" in positions else "5"] == pytest.approx(100 * 5 / 10.5)
    assert [tick.label for tick in drawn.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    assert "a goes from 0 at x 0 to 10 at 100" in drawn.summary


@pytest.mark.parametrize(
    ("low", "high"), [(0.1, 0.100001), (-5, 5), (0, 1e6), (1e-7, 9e-7), (99.1, 99.9), (3, 3)]
)
def test_axes_have_a_few_ticks(low: float, high: float) -> None:
    drawn = draw(LineChart("y", "x", [Series("a", [1, 2], [low, high])]))
    assert drawn is not None
    assert 1 <= len(drawn.y_ticks) <= 6
    assert all(0 <= tick.position <= 100 for tick in drawn.y_ticks)
    labels = [tick.label for tick in drawn.y_ticks]
    assert len(set(labels)) == len(labels)


def test_values_that_are_not_finite_are_left_out() -> None:
    drawn = draw(LineChart("y", "x", [Series("a", [1, 2, 3], [1.0, float("nan"), 2.0])]))
    assert drawn is not None
    assert drawn.data["series"][0]["x"] == [1, 3]
    assert "nan" not in drawn.lines[0].raw
    assert draw(LineChart("y", "x", [Series("a", [1], [float("inf")])])) is None


def test_long_runs_are_thinned_without_changing_their_mean() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    drawn = draw(LineChart("y", "x", [Series("a", range(100_000), values, smoothed=True)]))
    assert drawn is not None
    kept = drawn.data["series"][0]["y"]
    assert 1000 < len(kept) <= 1500
    assert np.mean(kept) == pytest.approx(values.mean(), abs=1e-3)
    assert len(re.findall("L", drawn.lines[0].smooth)) == len(kept) - 1


def test_smoothing_keeps_a_constant_and_has_no_bias_at_the_start() -> None:
    np.testing.assert_allclose(smoothed(np.full(5, 3.0), 0.9), 3.0)
    values = np.array([2.0, 4.0])
    # (0.6 * 0.4 * 2 + 0.4 * 4) / (0.6 * 0.4 + 0.4)
    np.testing.assert_allclose(smoothed(values, 0.6), [2, (0.24 * 2 + 0.4 * 4) / 0.64])


def test_a_line_keeps_its_color_if_others_have_no_points() -> None:
    drawn = draw(LineChart("y", "x", [Series("a", [], []), Series("b", [1, 2], [1, 2])]))
    assert drawn is not None
    assert [(line.name, line.index) for line in drawn.lines] == [("b", 1)]


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    chart = LineChart("y", "x", [Series("a", [1e-4, 1e-2, 1.0], [1.0, 2.0, 3.0])], log_x=True)
    drawn = draw(chart)
    assert drawn is not None
    np.testing.assert_allclose(points(drawn.lines[0].raw)[:, 0], [0, SIDE / 2, SIDE], atol=0.05)
    found = [(tick.label, round(tick.position, 6)) for tick in drawn.x_ticks]
    assert found == [("0.0001", 0), ("0.001", 25), ("0.01", 50), ("0.1", 75), ("1", 100)]
    assert drawn.data["log_x"]
    # The script and people get the values themselves.
    assert drawn.data["x"] == (1e-4, 1.0)
    assert drawn.data["series"][0]["x"] == [1e-4, 1e-2, 1.0]


@pytest.mark.parametrize(("low", "high"), [(1e-7, 10.0), (2.0, 3.0), (5.0, 5.0), (1e-30, 1e30)])
def test_a_logarithmic_axis_has_a_few_ticks(low: float, high: float) -> None:
    drawn = draw(LineChart("y", "x", [Series("a", [low, high], [1, 2])], log_x=True))
    assert drawn is not None
    assert 2 <= len(drawn.x_ticks) <= 7
    assert all(-1e-6 <= tick.position <= 100 + 1e-6 for tick in drawn.x_ticks)
