"""The page that compares several runs: a table, and their curves over each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from resnet_jax.report.charts import SMOOTHING, LineChart, Series, draw
from resnet_jax.report.page import create_environment
from resnet_jax.report.runs import Column, FoundRun


def write_comparison(
    path: Path,
    title: str,
    runs: Sequence[FoundRun],
    columns: Sequence[Column],
    chosen: Column,
    others: Mapping[str, str],
) -> None:
    """Write a page that compares runs.

    Args:
        path: The HTML file.
        title: Title of the page.
        runs: The runs.
        columns: Their table, as `runs.compare` returns it.
        chosen: The column that the rows are sorted by.
        others: Directories without a run, with the reason for each.
    """
    page = (
        create_environment()
        .get_template("runs.html.jinja")
        .render(
            title=title,
            smoothing=SMOOTHING,
            runs=runs,
            columns=columns,
            order=chosen.order(),
            sorted_by=chosen.name,
            best={column.name: _best(column) for column in columns},
            charts=[drawn for drawn in map(draw, overlaid(runs)) if drawn],
            others=others,
        )
    )
    path.write_text(page, encoding="utf-8")


def overlaid(runs: Sequence[FoundRun]) -> list[LineChart]:
    """Return charts with one line for each run, over the epochs.

    Runs of versions that did not record epochs have no lines.
    """

    def chart(title: str, key: str, *, train: bool, scale: float = 1, unit: str = "") -> LineChart:
        lines = []
        for run in runs:
            found = [
                record
                for record in run.records
                if (record["kind"] == "train") is train and key in record and "epoch" in record
            ]
            x = [record["epoch"] for record in found]
            y = [scale * record[key] for record in found]
            lines.append(Series(run.name, x, y, smoothed=train and key == "loss"))
        return LineChart(title, "epoch", lines, unit)

    return [
        chart("Top-1 accuracy of the evaluated split", "top1", train=False, scale=100, unit="%"),
        chart("Loss on the evaluated split (nats)", "loss", train=False),
        chart("Training loss (nats)", "loss", train=True),
        chart("Learning rate", "learning_rate", train=True),
    ]


def _best(column: Column) -> float | str | None:
    """Return the best value of a column, if there are several and one is better."""
    values = {cell.value for cell in column.cells if cell.value is not None}
    return column.cells[column.order()[0]].value if column.best and len(values) > 1 else None
