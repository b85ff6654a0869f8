"""The contents of a report."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from resnet_jax.report.charts import LineChart, Series


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationRecord:
    """What a network made of N images of K classes.

    Attributes:
        split: Name of the evaluated images, such as ``"test"``.
        class_names: K names.
        labels: int[N], 0 to K - 1.
        logits: float32[N, K].
        mask: bool[N], False for images that were skipped because they could not be read. They are
            left out of every count and every list.
        image: Function that returns an image, uint8[H, W, 1 or 3], given its index. Several threads
            call it at once.
        name: Function that returns the name of an image, such as that of its file, given its index.
        explain: Function that returns how much each pixel speaks for a class, float32[N, H, W] from
            0 to 1, given images uint8[N, H, W, C] and classes int[N]; `Classifier.explain` is one.
            None leaves the heatmaps out.

    Raises:
        ValueError: The arrays do not fit each other, or no image could be read.
    """

    split: str
    class_names: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    mask: np.ndarray
    image: Callable[[int], np.ndarray]
    name: Callable[[int], str]
    explain: Callable[[np.ndarray, np.ndarray], Any] | None = None

    def __post_init__(self) -> None:
        if not len(self.labels) == len(self.logits) == len(self.mask):
            raise ValueError(
                f"labels, logits and mask must have one entry per image, but they have "
                f"{len(self.labels)}, {len(self.logits)} and {len(self.mask)}"
            )
        if self.logits.shape[1] != len(self.class_names):
            raise ValueError(
                f"logits must have one column for each of {len(self.class_names)} class names, but "
                f"they have {self.logits.shape[1]}"
            )
        if not np.any(self.mask):
            raise ValueError("no image could be read, so there is nothing to report")


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything that the report of a run or of an evaluation shows.

    The page has no section for what is empty or None.

    Attributes:
        title: Title of the page.
        kind: What the page is, in two or three words. By default it is a training report, or an
            evaluation report if there are no records.
        facts: What was run, by name.
        headline: The few numbers that matter most, by name.
        records: Metrics in the order of their steps. Each has ``step``, ``kind`` (``"train"`` or
            the name of the split), ``loss`` and ``top1``; those of training also have
            ``learning_rate`` and ``images_per_second``. ``epoch`` and ``top5`` are optional.
        learning_rate: The learning rate by step. By default it is that of the records, which do not
            have every step.
        config: JSON of the resolved configuration, as `TrainConfig.to_json` returns it.
        goodput: Share of the wall time, 0 to 1, by activity.
        operations: The operations that took longest in the traced steps, longest first: name,
            origin, seconds, and share of the total, 0 to 1.
        evaluation: The images and what the network made of them.
        kernels: Kernels of the first convolution, float32[H, W, C, K].
        charts: More charts, in a section of their own after the curves.
    """

    title: str
    kind: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    headline: Mapping[str, str] = dataclasses.field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    learning_rate: Series | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    goodput: Mapping[str, float] = dataclasses.field(default_factory=dict)
    operations: Sequence[tuple[str, str, float, float]] = ()
    evaluation: EvaluationRecord | None = None
    kernels: np.ndarray | None = None
    charts: Sequence[LineChart] = ()
