"""Line charts for a terminal, drawn with the dots of Braille characters."""

import numpy as np
from rich.text import Text

from resnet_jax.report.charts import LineChart, Series, draw

COLORS = (
    "dodger_blue1",
    "dark_orange",
    "green3",
    "medium_purple1",
    "gold3",
    "grey62",
    "deep_pink2",
    "dark_turquoise",
)
"""Colors of the lines. They repeat after the last one."""

# Numbers of the dots of a Braille character, by row and column; dot n is bit n.
_DOTS = np.array([[0, 3], [1, 4], [2, 5], [6, 7]])
_BLANK = 0x2800


def draw_text(chart: LineChart, *, width: int, height: int) -> Text | None:
    """Return a chart as text, or None if it has no points.

    Args:
        chart: The chart.
        width: Width of the whole chart in characters, at least 30.
        height: Height of the area of the lines in characters.
    """
    drawn = draw(chart)
    if drawn is None:
        return None
    labels = {
        height - 1 - round(tick.position / 100 * (height - 1)): tick.label for tick in drawn.y_ticks
    }
    margin = max(map(len, labels.values()), default=0)
    columns = width - margin - 2
    cells = np.zeros((height, columns), np.int64)
    owner = np.full((height, columns), -1)
    for number, series in enumerate(chart.series):
        for row, column in _dots(series, drawn.data, 4 * height, 2 * columns):
            cells[row // 4, column // 2] |= 1 << int(_DOTS[row % 4, column % 2])
            owner[row // 4, column // 2] = number
    text = Text(f"{chart.title}\n", style="bold")
    for row in range(height):
        text.append(f"{labels.get(row, ''):>{margin}} ┤", style="not bold dim")
        for column in range(columns):
            style = COLORS[owner[row, column] % len(COLORS)] if cells[row, column] else ""
            text.append(chr(_BLANK + int(cells[row, column])), style=f"not bold {style}".strip())
        text.append("\n")
    axis = [" "] * columns
    for tick in drawn.x_ticks:
        start = min(round(tick.position / 100 * (columns - 1)), columns - len(tick.label))
        axis[start : start + len(tick.label)] = tick.label
    text.append(" " * (margin + 2) + "".join(axis).rstrip() + f"  {chart.x_label}", "not bold dim")
    return text


def _dots(series: Series, limits: dict, height: int, width: int) -> list[tuple[int, int]]:
    """Return rows and columns of the dots of a line, from the first point to the last."""
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(x):
        return []
    (left, right), (bottom, top) = limits["x"], limits["y"]
    if limits["log_x"]:
        x, left, right = np.log10(x), np.log10(left), np.log10(right)
    columns = (x - left) / (right - left) * (width - 1)
    rows = (top - y) / (top - bottom) * (height - 1)
    shown = np.arange(round(columns[0]), round(columns[-1]) + 1)
    levels = np.rint(np.interp(shown, columns, rows)).astype(int)
    dots = []
    for i, (column, row) in enumerate(zip(shown, levels, strict=True)):
        # A steep line has several dots in a column.
        before = levels[i - 1] if i else row
        low, high = sorted((int(row), int(before + np.sign(row - before)) if i else int(row)))
        dots += [(level, int(column)) for level in range(low, high + 1)]
    return dots
