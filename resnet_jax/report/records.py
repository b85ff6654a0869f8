"""The contents of a report."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything that the report of a run shows.

    Attributes:
        title: Title of the page.
        facts: What was run, by name.
        headline: The few numbers that matter most, by name.
        records: Metrics in the order of their steps. Each has ``step``, ``kind`` (``"train"`` or
            the name of the split), ``loss`` and ``top1``; those of training also have
            ``learning_rate`` and ``images_per_second``.
        split: Name of the evaluated split.
        class_names: K names.
        image: Function that returns an image of that split, uint8[H, W, 1 or 3], given its index.
        labels: int32[N], the labels of the split.
        logits: float32[N, K].
        mask: bool[N], False for images that were skipped because they could not be read. They are
            left out of every count and every list.
        config: JSON of the resolved configuration.
        goodput: Share of the wall time, 0 to 1, by activity.
        operations: The operations that took longest in the traced steps, longest first: name,
            origin, seconds, and share of the total, 0 to 1.
    """

    title: str
    facts: Mapping[str, str]
    headline: Mapping[str, str]
    records: Sequence[Mapping[str, Any]]
    split: str
    class_names: Sequence[str]
    image: Callable[[int], np.ndarray]
    labels: np.ndarray
    logits: np.ndarray
    mask: np.ndarray
    config: Mapping[str, Any]
    goodput: Mapping[str, float] = dataclasses.field(default_factory=dict)
    operations: Sequence[tuple[str, str, float, float]] = ()
