"""The results of an evaluation as tables on the terminal."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from resnet_jax.inference.measures import ClassMeasures, Measures

# Number of classes and of confusions that are shown.
_ROWS = 10
_BARS = "▁▂▃▄▅▆▇█"


def measure_table(measures: Measures) -> Table:
    """Return the measures with their confidence intervals."""
    table = Table("measure", box=None)
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    rows = (
        ("top-1 accuracy %", "top1", 100, 2),
        ("top-5 accuracy %", "top5", 100, 2),
        ("negative log-likelihood, nats", "nll", 1, 4),
        ("Brier score, 0 to 2", "brier", 1, 4),
        ("calibration error %, bins of equal width", "ece", 100, 2),
        ("calibration error %, bins of equal mass", "ece_mass", 100, 2),
    )
    for title, name, scale, digits in rows:
        ends = measures.intervals.get(name)
        table.add_row(
            title,
            f"{scale * getattr(measures, name):.{digits}f}",
            "" if ends is None else " to ".join(f"{scale * end:.{digits}f}" for end in ends),
        )
    return table


def class_table(classes: Sequence[ClassMeasures]) -> Table:
    """Return the classes with the lowest F1, the lowest first."""
    known = [row for row in classes if row.images]
    hardest = sorted(known, key=lambda row: row.f1 or 0)[:_ROWS]
    title = "class" if len(hardest) == len(known) else f"hardest of {len(known):,} classes"
    table = Table(title, box=None)
    for heading in ("images", "precision %", "recall %", "F1 %"):
        table.add_column(heading, justify="right")
    for row in hardest:
        table.add_row(
            Text(row.name),
            f"{row.images:,}",
            *("-" if v is None else f"{100 * v:.1f}" for v in (row.precision, row.recall, row.f1)),
        )
    return table


def confusion_table(matrix: np.ndarray, class_names: Sequence[str]) -> Table | None:
    """Return the most frequent confusions, or None if there are none."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_ROWS]
    cells = [
        (i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]
    ]
    if not cells:
        return None
    table = Table("class", "taken for", box=None)
    table.add_column("images", justify="right")
    table.add_column("share of the class %", justify="right")
    for i, j in cells:
        share = 100 * wrong[i, j] / matrix[i].sum()
        table.add_row(
            Text(class_names[i]), Text(class_names[j]), f"{wrong[i, j]:,}", f"{share:.1f}"
        )
    return table


def corruption_table(clean: Measures, corruptions: Mapping[str, Sequence[Measures]]) -> Table:
    """Return the top-1 accuracy by corruption and severity, with a small curve of each."""
    table = Table("top-1 accuracy %", box=None)
    for heading in ("clean", *map(str, range(1, 6)), "mean"):
        table.add_column(heading, justify="right")
    table.add_column("curve")
    rows = {
        name.replace("_", " "): [measures.top1 for measures in row]
        for name, row in corruptions.items()
    }
    rows["mean"] = np.mean(list(rows.values()), axis=0).tolist()
    for name, row in rows.items():
        values = [clean.top1, *row, sum(row) / len(row)]
        bars = "".join(_BARS[min(7, int(8 * value))] for value in values[:-1])
        table.add_row(name, *(f"{100 * value:.1f}" for value in values), bars)
    return table
