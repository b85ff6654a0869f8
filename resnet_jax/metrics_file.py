"""Reading of ``metrics.jsonl``, the metrics that a run records while it trains."""

import json
from pathlib import Path
from typing import Any


def read_metrics(jsonl: Path) -> list[dict[str, Any]]:
    """Return the records of a run in the order of their steps.

    If a step was recorded twice, which versions before 0.2 did after a resume, the later record
    counts.  A last line that a crash left unfinished is ignored.
    """
    return sorted(_records(jsonl).values(), key=lambda record: record["step"])


def _records(jsonl: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the records by kind and step."""
    records: dict[tuple[str, int], dict[str, Any]] = {}
    for line in jsonl.read_text().splitlines():
        try:
            record = json.loads(line)
        except (RecursionError, ValueError):
            continue
        records[record["kind"], record["step"]] = record
    return records
