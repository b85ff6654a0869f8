"""The report of a run: one HTML file that needs no other files."""

import base64
import io
import json
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from resnet_jax.report.charts import confusion_chart, curves
from resnet_jax.report.records import (
    RunRecord,
    confusion_matrix,
    hardest_classes,
    most_confused,
    worst_examples,
)

# A larger matrix cannot be read.
_MAX_MATRIX_CLASSES = 50
_MAX_WORST = 24


def write_report(path: Path, record: RunRecord) -> None:
    """Write a page with curves, the confusion matrix, the worst images and the use of time.

    Args:
        path: The HTML file.
        record: What the page shows.
    """
    mask = np.asarray(record.mask, bool)
    labels, predictions = record.labels[mask], record.logits[mask].argmax(axis=1)
    names = record.class_names
    matrix = confusion_matrix(labels, predictions, len(names))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnet_jax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    page = environment.get_template("report.html.jinja").render(
        title=record.title,
        facts=record.facts,
        headline=record.headline,
        split=record.split,
        curves=curves(record.records, record.split),
        matrix=confusion_chart(matrix, names) if len(names) <= _MAX_MATRIX_CLASSES else None,
        num_errors=int(np.sum(predictions != labels)),
        num_examples=len(labels),
        num_skipped=int(np.sum(~mask)),
        classes=hardest_classes(matrix, names),
        confusions=most_confused(matrix, names),
        worst=worst_examples(record, _MAX_WORST),
        goodput=dict(record.goodput),
        operations=record.operations,
        config=json.dumps(record.config, indent=2),
    )
    path.write_text(page, encoding="utf-8")


def _data_uri(image: np.ndarray) -> str:
    """Return a uint8[H, W, 1 or 3] image as the URI of a PNG that the page itself contains."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
