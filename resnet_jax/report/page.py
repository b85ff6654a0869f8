"""The report of a run or of an evaluation: one HTML file that needs no other files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from resnet_jax.config import ConfigError, TrainConfig, changed_fields
from resnet_jax.report.charts import SMOOTHING, DrawnChart, LineChart, Series, draw, number
from resnet_jax.report.evaluation import view
from resnet_jax.report.pictures import draw_kernels
from resnet_jax.report.records import RunRecord

# Rows of the table of values below the curves.
_MAX_VALUES = 40
# Longest name of a file that is shown in full; its tooltip has all of it.
_LONGEST_NAME = 48


def write_report(path: Path, record: RunRecord) -> None:
    """Write a page about a run: curves, mistakes, classes, calibration, and how it was run.

    Args:
        path: The HTML file.
        record: What the page shows. Sections without data are left out.
    """
    page = (
        create_environment()
        .get_template("report.html.jinja")
        .render(
            record=record,
            smoothing=SMOOTHING,
            curves=_drawn(_curves(record.records, record.learning_rate)),
            values=_values(record.records),
            charts=_drawn(record.charts),
            evaluation=view(record.evaluation) if record.evaluation else None,
            kernels=None if record.kernels is None else draw_kernels(record.kernels),
            changes=_changes(record.config),
            config=json.dumps(record.config, indent=2) if record.config else "",
        )
    )
    path.write_text(page, encoding="utf-8")


def create_environment(*packages: str) -> jinja2.Environment:
    """Return the environment of the templates.

    Args:
        packages: Packages that have a directory ``templates``. By default it is this one.
    """
    packages = packages or ("resnet_jax.report",)
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    environment.filters["breakable"] = _breakable
    environment.filters["shortened"] = _shortened
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    return environment


def _breakable(name: str) -> Markup:
    """Return a dotted name as HTML that may be broken into lines after its parts."""
    return escape(name).replace(".", Markup(".<wbr>")).replace("_", Markup("_<wbr>"))


def _shortened(name: str) -> str:
    """Return a name without its middle if it is long: both ends of a path matter."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:20]}\N{HORIZONTAL ELLIPSIS}{name[-27:]}"


def _drawn(charts: Sequence[LineChart]) -> list[DrawnChart]:
    return [drawn for drawn in map(draw, charts) if drawn]


def _curves(
    records: Sequence[Mapping[str, Any]], learning_rate: Series | None = None
) -> list[LineChart]:
    """Return loss, accuracies, learning rate and throughput by step."""

    def series(
        kind: str, key: str, scale: float = 1, *, name: str = "", smoothed: bool = False
    ) -> Series:
        found = [record for record in records if record["kind"] == kind and key in record]
        return Series(
            name or kind,
            [record["step"] for record in found],
            [scale * record[key] for record in found],
            smoothed=smoothed,
        )

    kinds = list(dict.fromkeys(record["kind"] for record in records))
    rates = learning_rate or series("train", "learning_rate")

    def of_all(key: str, scale: float = 1) -> list[Series]:
        found = [series(kind, key, scale, smoothed=kind == "train") for kind in kinds]
        raw = [series(kind, f"raw_{key}", scale, name=f"{kind}, raw weights") for kind in kinds]
        return [*found, *(curve for curve in raw if curve.x)]

    # With five classes or fewer, every label is among the five highest logits.
    top5 = [record["top5"] for record in records if "top5" in record]
    has_top5 = any(share < 1 for share in top5)
    return [
        LineChart("Loss (nats)", "step", of_all("loss")),
        LineChart("Top-1 accuracy", "step", of_all("top1", 100), unit="%"),
        *([LineChart("Top-5 accuracy", "step", of_all("top5", 100), unit="%")] if has_top5 else []),
        LineChart("Learning rate", "step", [rates], from_zero=True),
        LineChart(
            "Training throughput (images/s)",
            "step",
            [series("train", "images_per_second", smoothed=True)],
            from_zero=True,
        ),
    ]


def _values(records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a table of the metrics, at most 40 steps of a run."""
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    columns = [
        (f"{kind} {name}", kind, key, scale)
        for name, key, scale in (
            ("loss", "loss", 1),
            ("top-1 (%)", "top1", 100),
            ("top-5 (%)", "top5", 100),
            ("raw loss", "raw_loss", 1),
            ("raw top-1 (%)", "raw_top1", 100),
        )
        for kind in kinds
    ]
    columns += [
        ("learning rate", "train", "learning_rate", 1),
        ("images/s", "train", "images_per_second", 1),
        ("skipped steps", "train", "skipped_steps", 1),
        ("loss scale", "train", "loss_scale", 1),
    ]
    by_step: dict[int, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        by_step.setdefault(record["step"], {})[record["kind"]] = record
    columns = [
        column
        for column in columns
        if any(column[2] in found.get(column[1], {}) for found in by_step.values())
    ]
    steps = sorted(by_step)
    # The last evaluation is among the rows, whatever the number of steps.
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MAX_VALUES)).round())
    rows = []
    for step in (steps[int(i)] for i in chosen):
        found = [by_step[step].get(kind, {}).get(key) for _, kind, key, _ in columns]
        cells = [
            "" if value is None else number(scale * value)
            for value, (*_, scale) in zip(found, columns, strict=True)
        ]
        rows.append([f"{step:,}", *cells])
    return ["step", *(name for name, *_ in columns)], rows


def _changes(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the fields of a configuration that differ from their defaults: name and values."""
    try:
        changes = changed_fields(TrainConfig.from_json(dict(config))) if config else []
    except ConfigError:
        # Another version wrote it, or it is not the configuration of a run.
        return []
    return [
        (name, _text(value), "none, must be given" if required else _text(default))
        for name, value, default, required in changes
    ]


def _text(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value
