"""Charts of a report, drawn by Matplotlib as SVG."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_BLUE, _ORANGE, _GRAY = "#2563eb", "#ea580c", "#6b7280"
_STYLE = {
    "svg.fonttype": "none",
    # Makes the ids in the file the same each time; by default they are random.
    "svg.hashsalt": "resnet_jax",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
}


@rc_context(_STYLE)
def curves(records: Sequence[Mapping[str, Any]], split: str) -> list[Markup]:
    """Return the charts of loss, accuracy, learning rate and throughput over the steps.

    Args:
        records: As in `RunRecord.records`.
        split: Name of the evaluated split.
    """
    train = [record for record in records if record["kind"] == "train"]
    evaluation = [record for record in records if record["kind"] == split]

    def plot(axes: Axes, kind: Iterable[Mapping[str, Any]], key: str, **style: Any) -> None:
        points = [(record["step"], record[key]) for record in kind]
        # A line through a single point is invisible.
        marker = "o" if len(points) < 20 else None
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=3.5, **style)

    figures = []
    for key, name in (("loss", "Loss (nats)"), ("top1", "Top-1 accuracy (%)")):
        figure, axes = _axes(name)
        scale = 100 if key == "top1" else 1
        for kind, label, color in (
            (train, "train, augmented", _BLUE),
            (evaluation, split, _ORANGE),
        ):
            scaled = [{**record, key: scale * record[key]} for record in kind]
            plot(axes, scaled, key, color=color, label=label)
        axes.legend()
        figures.append(figure)
    for key, name, color in (
        ("learning_rate", "Learning rate", _GRAY),
        ("images_per_second", "Training throughput (images/s)", _GRAY),
    ):
        figure, axes = _axes(name)
        plot(axes, train, key, color=color)
        axes.set_ylim(bottom=0)
        figures.append(figure)
    return [_svg(figure, name) for figure, name in zip(figures, _CURVE_NAMES, strict=True)]


_CURVE_NAMES = (
    "Loss by step",
    "Accuracy by step",
    "Learning rate by step",
    "Throughput by step",
)


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel("step")
    return figure, axes


@rc_context(_STYLE)
def confusion_chart(matrix: np.ndarray, class_names: Sequence[str]) -> Markup:
    """Return the confusion matrix as a grid: correct counts are blue, wrong ones orange.

    The share of the true class sets how strong a color is.

    Args:
        matrix: As `records.confusion_matrix` returns it.
        class_names: K names.
    """
    num_classes = len(class_names)
    side = max(4.2, 0.36 * num_classes + 1.2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    right = np.eye(num_classes, dtype=bool)
    blue, orange = (
        np.array([0x25, 0x63, 0xEB]) / 255,
        np.array([0xEA, 0x58, 0x0C]) / 255,
    )
    # Errors are rare in a good network, so even a small share must be visible.
    strength = np.where(right, share, np.where(share > 0, 0.25 + 0.75 * share, 0))[..., None]
    axes.imshow(1 - strength * (1 - np.where(right[..., None], blue, orange)))
    for (i, j), count in np.ndenumerate(matrix):
        if count:
            color = "white" if strength[i, j, 0] > 0.5 else "black"
            axes.text(j, i, str(count), ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(num_classes), class_names, rotation=90 if num_classes > 10 else 0)
    axes.set_yticks(range(num_classes), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.grid(False)
    return _svg(figure, "Confusion matrix")


def _svg(figure: Figure, description: str) -> Markup:
    """Return the figure as an SVG element of an HTML page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": description})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])
