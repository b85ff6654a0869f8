"""Line charts as a page draws them: scales, ticks and SVG paths.

A chart fills whatever width the page gives it. Its lines are drawn in a square that the browser
stretches, and its labels are text of the page, placed in percent of the square.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SIDE = 1000
"""Width and height of the square in which lines are drawn."""

SMOOTHING = 0.6
"""Share of the smoothed value before that the next smoothed value keeps, 0 to below 1."""

# A line is thinned to this many points: more cannot be told apart, and make the page heavy.
_MAX_POINTS = 1500
# A line of fewer points shows each of them as a dot.
_MAX_DOTS = 20
# A line of fewer points is not smoothed.
_MIN_SMOOTHED = 8


class Series(NamedTuple):
    """One line of a chart.

    Attributes:
        name: Name in the legend.
        x: float[N], rising.
        y: float[N]. Values that are not finite are left out.
        smoothed: Whether a smoothed line is drawn over the raw one.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    smoothed: bool = False


@dataclasses.dataclass(frozen=True)
class LineChart:
    """Lines over a common axis.

    Attributes:
        title: What the vertical axis shows.
        x_label: What the horizontal axis shows.
        series: The lines.
        unit: Text after each value, such as ``"%"``.
        from_zero: Whether the vertical axis begins at zero.
        log_x: Whether the horizontal axis is logarithmic. All values of x are then above 0.
    """

    title: str
    x_label: str
    series: Sequence[Series]
    unit: str = ""
    from_zero: bool = False
    log_x: bool = False


class Tick(NamedTuple):
    """A labeled position on an axis, in percent of its length."""

    position: float
    label: str


class Line(NamedTuple):
    """A drawn line.

    Attributes:
        name: Name in the legend.
        index: Number of its series in the chart, which decides its color.
        raw: SVG path of the values.
        smooth: SVG path of the smoothed values, or an empty string.
        dots: SVG path that draws a dot at each value, or an empty string.
    """

    name: str
    index: int
    raw: str
    smooth: str
    dots: str


class DrawnChart(NamedTuple):
    """A chart in the coordinates of the page.

    Attributes:
        chart: The chart.
        lines: Its lines, without those that have no points.
        x_ticks: Ticks from left to right.
        y_ticks: Ticks from bottom to top.
        summary: The chart in one sentence, for people who do not see it.
        data: The values and limits, for the script of the page.
    """

    chart: LineChart
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    summary: str
    data: dict[str, Any]


def draw(chart: LineChart) -> DrawnChart | None:
    """Return a chart in the coordinates of the page, or None if it has no points."""
    thinned = [_thin(series) for series in chart.series]
    indices = [i for i, one in enumerate(thinned) if len(one.x)]
    series = [thinned[i] for i in indices]
    if not series:
        return None
    x = np.concatenate([one.x for one in series])
    y = np.concatenate([one.y for one in series])
    x_limits = float(x.min()), float(x.max())
    if x_limits[0] == x_limits[1]:
        x_limits = (
            (x_limits[0] / 10, x_limits[1] * 10)
            if chart.log_x
            else (x_limits[0] - 1, x_limits[1] + 1)
        )
    place = np.log10 if chart.log_x else np.asarray
    x_range = float(place(x_limits[0])), float(place(x_limits[1]))
    y_limits = _limits(y, from_zero=chart.from_zero, percent=chart.unit == "%")
    lines, data = [], []
    for index, one in zip(indices, series, strict=True):
        soft = one.smoothed and len(one.x) >= _MIN_SMOOTHED
        points = np.stack([_scaled(place(one.x), x_range), SIDE - _scaled(one.y, y_limits)], axis=1)
        smooth = smoothed(np.asarray(one.y), SMOOTHING) if soft else np.zeros(0)
        soft_points = np.stack([points[: len(smooth), 0], SIDE - _scaled(smooth, y_limits)], axis=1)
        dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in points)
        lines.append(
            Line(
                name=one.name,
                index=index,
                raw=_path(points),
                smooth=_path(soft_points),
                dots=dots if len(points) <= _MAX_DOTS and not soft else "",
            )
        )
        data.append(
            {
                "name": one.name,
                "x": [_rounded(value) for value in one.x],
                "y": [_rounded(value) for value in one.y],
                "smoothed": soft,
            }
        )
    return DrawnChart(
        chart,
        lines,
        _log_ticks(x_range, 7) if chart.log_x else _ticks(x_range, 5),
        _ticks(y_limits, 4, chart.unit),
        _summary(chart, series),
        {
            "x": x_limits,
            "y": y_limits,
            "log_x": chart.log_x,
            "unit": chart.unit,
            "label": chart.x_label,
            "series": data,
        },
    )


def smoothed(values: np.ndarray, weight: float) -> np.ndarray:
    """Return exponential moving averages without the bias of their start, as TensorBoard does.

    >>> smoothed(np.array([1.0, 1.0, 4.0]), 0.5).round(3).tolist()
    [1.0, 1.0, 2.714]

    Args:
        values: float[N].
        weight: Share of the average that each value leaves unchanged, 0 to below 1.
    """
    averages, total, scale = np.empty(len(values)), 0.0, 0.0
    for i, value in enumerate(values):
        total = weight * total + (1 - weight) * value
        scale = weight * scale + (1 - weight)
        averages[i] = total / scale
    return averages


def number(value: float) -> str:
    """Return a number with four significant digits, for people.

    >>> [number(value) for value in (0.000012, 0.12345, 12.5, 98.0, 12345.6)]
    ['1.2e-05', '0.1235', '12.5', '98', '12,346']
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _thin(series: Series) -> Series:
    """Return the finite values; if there are too many, the means of groups of neighbors."""
    x, y = np.asarray(series.x, np.float64), np.asarray(series.y, np.float64)
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) > _MAX_POINTS:
        starts = np.arange(0, len(x), math.ceil(len(x) / _MAX_POINTS))
        sizes = np.diff(np.append(starts, len(x)))
        x, y = np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes
    return series._replace(x=x.tolist(), y=y.tolist())


def _limits(values: np.ndarray, *, from_zero: bool, percent: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    bottom = 0.0 if from_zero and low >= 0 else low - margin
    # Values that cannot be negative have no negative axis.
    bottom = max(bottom, 0.0) if low >= 0 else bottom
    top = high + margin
    return bottom, min(top, 100.0) if percent and high < 100 else top


def _scaled(values: Sequence[float] | np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    return SIDE * (np.asarray(values, np.float64) - low) / (high - low)


def _path(points: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if len(points) else ""


def _ticks(limits: tuple[float, float], most: int, unit: str = "") -> list[Tick]:
    """Return ticks at multiples of 1, 2 or 5 times a power of ten."""
    low, high = limits
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * f for f in (1, 2, 5, 10, 20) if (high - low) / (power * f) <= most)
    values = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    thousands = step >= 1000 and high >= 10_000
    decimals = max(0, -math.floor(math.log10(step)))

    def label(value: float) -> str:
        if thousands:
            return f"{value / 1000:g}k"
        return f"{value:.2g}" if high < 1e-3 else f"{value:,.{decimals}f}"

    return [Tick(100 * (value - low) / (high - low), label(value) + unit) for value in values]


def _log_ticks(limits: tuple[float, float], most: int) -> list[Tick]:
    """Return ticks at powers of ten, or at the limits if there are fewer than two powers.

    Args:
        limits: Decimal logarithms of the ends of the axis.
        most: Largest number of ticks.
    """
    low, high = limits
    # Rounding may have moved a limit that is a power of ten.
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    every = math.ceil(len(powers) / most)
    chosen = [float(power) for power in powers][::every] if len(powers) > 1 else [low, high]
    return [Tick(100 * (at - low) / (high - low), f"{10**at:.2g}") for at in chosen]


def _rounded(value: float) -> float:
    """Return a value with the digits that a reader may see, so that the page stays small."""
    return float(f"{value:.6g}")


def _summary(chart: LineChart, series: Sequence[Series]) -> str:
    lines = [
        f"{one.name} goes from {number(one.y[0])}{chart.unit} at {chart.x_label} "
        f"{number(one.x[0])} to {number(one.y[-1])}{chart.unit} at {number(one.x[-1])}"
        for one in series[:8]
    ]
    more = [f"and {len(series) - 8} more lines"] if len(series) > 8 else []
    return f"{chart.title} by {chart.x_label}: {'; '.join([*lines, *more])}."
