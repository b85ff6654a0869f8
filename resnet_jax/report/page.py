"""The report of a run: one HTML file that needs nothing else."""

import base64
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

_BLUE, _ORANGE, _GREY = "#2563eb", "#ea580c", "#6b7280"
_STYLE = {
    "svg.fonttype": "none",
    # Ids in the file are derived from this instead of from a random number.
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
_MAX_MATRIX_CLASSES = 50
_MAX_WORST = 24


@dataclasses.dataclass(frozen=True)
class Example:
    """A picture in the report.

    Attributes:
        png: data URI.
        label: name of its class.
        prediction: name of the class that the network chose.
        probability: that the network gave to ``label``, 0 to 1.
    """

    png: str
    label: str
    prediction: str
    probability: float


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    headline: Mapping[str, str],
    records: Sequence[Mapping[str, Any]],
    split: str,
    class_names: Sequence[str],
    image: Callable[[int], np.ndarray],
    labels: np.ndarray,
    logits: np.ndarray,
    config: Mapping[str, Any],
    goodput: Mapping[str, float] | None = None,
    operations: Sequence[tuple[str, str, float, float]] = (),
) -> None:
    """Writes curves, confusion matrix, the worst-classified images, and where the time went.

    Args:
        path: of the HTML file.
        title: of the page.
        facts: what was run, by name.
        headline: the few numbers that matter, by name.
        records: ``step``, ``kind`` (``"train"`` or ``split``) and values, in order of steps.
        split: name of the evaluated split.
        class_names: K names.
        image: from the index of an example of that split to uint8[H, W, 1 or 3].
        labels: int32[N].
        logits: float32[N, K].
        config: JSON of the resolved configuration.
        goodput: share of the wall time, 0 to 1, by activity.
        operations: of the traced steps, the longest first: name, what it comes from, seconds and
            share of all, 0 to 1.
    """
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predictions = logits.argmax(axis=1)
    matrix = confusion_matrix(labels, predictions, len(class_names))
    worst = np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")[:_MAX_WORST]
    with rc_context(_STYLE):
        curves = _curves(records, split)
        matrix_figure = (
            _matrix_figure(matrix, class_names) if len(class_names) <= _MAX_MATRIX_CLASSES else None
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnet_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        title=title,
        facts=facts,
        headline=headline,
        split=split,
        curves=curves,
        matrix=matrix_figure,
        num_errors=int(np.sum(predictions != labels)),
        num_examples=len(labels),
        classes=_hardest_classes(matrix, class_names),
        confusions=_most_confused(matrix, class_names),
        worst=[
            Example(
                png=_data_uri(image(i)),
                label=class_names[labels[i]],
                prediction=class_names[predictions[i]],
                probability=float(probabilities[i, labels[i]]),
            )
            for i in worst
        ],
        goodput=dict(goodput or {}),
        operations=operations,
        config=json.dumps(config, indent=2),
    )
    path.write_text(page, encoding="utf-8")


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """int64[K, K]: how many examples of class i (row) were taken for class j (column)."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def _hardest_classes(
    matrix: np.ndarray, class_names: Sequence[str]
) -> list[tuple[str, int, float]]:
    """Up to ten (class, number of images, share that is right), the hardest first."""
    counts = matrix.sum(axis=1)
    present = np.flatnonzero(counts)
    right = np.diag(matrix)[present] / counts[present]
    order = np.argsort(right, kind="stable")[:10]
    return [(class_names[present[i]], int(counts[present[i]]), float(right[i])) for i in order]


def _most_confused(matrix: np.ndarray, class_names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Up to ten (class, taken for, how often), the most frequent first."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    rows, columns = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:10], wrong.shape)
    return [
        (class_names[i], class_names[j], int(wrong[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if wrong[i, j]
    ]


def _curves(records: Sequence[Mapping[str, Any]], split: str) -> list[Markup]:
    train = [record for record in records if record["kind"] == "train"]
    evaluation = [record for record in records if record["kind"] == split]

    def plot(axes: Axes, kind: Iterable[Mapping[str, Any]], key: str, **style: Any) -> None:
        points = [(record["step"], record[key]) for record in kind]
        # A single point has no line to show it.
        marker = "o" if len(points) < 20 else None
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=3.5, **style)

    figures = []
    for key, name in (("loss", "Loss (nats)"), ("top1", "Top-1 accuracy (%)")):
        figure, axes = _axes(name)
        scale = 100 if key == "top1" else 1
        for kind, label, color in (
            (train, "train, as augmented", _BLUE),
            (evaluation, split, _ORANGE),
        ):
            scaled = [{**record, key: scale * record[key]} for record in kind]
            plot(axes, scaled, key, color=color, label=label)
        axes.legend()
        figures.append(figure)
    for key, name, color in (
        ("learning_rate", "Learning rate", _GREY),
        ("images_per_second", "Training throughput (images/s)", _GREY),
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


def _matrix_figure(matrix: np.ndarray, class_names: Sequence[str]) -> Markup:
    """Counts in a grid: right ones blue, wrong ones orange, each as strong as its share."""
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
    # Errors are rare in a good network, so even a small share must be seen.
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
    """The figure as an element of an HTML page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": description})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])


def _data_uri(image: np.ndarray) -> str:
    """A uint8[H, W, 1 or 3] image as a PNG within the page."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
