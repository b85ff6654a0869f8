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

    def __post_init__(self) -> None:
        if not len(self.labels) == len(self.logits) == len(self.mask):
            raise ValueError(
                f"labels, logits and mask must have one entry per image, but they have "
                f"{len(self.labels)}, {len(self.logits)} and {len(self.mask)}"
            )


@dataclasses.dataclass(frozen=True)
class Example:
    """An image and what the network made of it.

    Attributes:
        pixels: uint8[H, W, 1 or 3].
        label: Name of its true class.
        prediction: Name of the class that the network chose.
        probability: Probability of the true class, 0 to 1.
    """

    pixels: np.ndarray
    label: str
    prediction: str
    probability: float


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the number of examples of class i (row) that were taken for class j (column).

    Args:
        labels: int[N], 0 to K - 1.
        predictions: int[N], 0 to K - 1.
        num_classes: K.

    Returns:
        int64[K, K].
    """
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def hardest_classes(matrix: np.ndarray, class_names: Sequence[str]) -> list[tuple[str, int, float]]:
    """Return up to ten classes, the lowest accuracy first.

    Args:
        matrix: As `confusion_matrix` returns it.
        class_names: K names.

    Returns:
        Name, number of images, and accuracy from 0 to 1. Classes without images are left out.
    """
    counts = matrix.sum(axis=1)
    present = np.flatnonzero(counts)
    right = np.diag(matrix)[present] / counts[present]
    order = np.argsort(right, kind="stable")[:10]
    return [(class_names[present[i]], int(counts[present[i]]), float(right[i])) for i in order]


def most_confused(matrix: np.ndarray, class_names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return up to ten pairs of classes, the most frequent confusion first.

    Args:
        matrix: As `confusion_matrix` returns it.
        class_names: K names.

    Returns:
        True class, predicted class, and number of images, which is above 0.
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    rows, columns = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:10], wrong.shape)
    return [
        (class_names[i], class_names[j], int(wrong[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if wrong[i, j]
    ]


def worst_examples(record: RunRecord, count: int) -> list[Example]:
    """Return the images whose true class got the lowest probability, the worst first.

    Skipped images are left out.

    Args:
        record: The run.
        count: Largest number of images to return.
    """
    indices = np.flatnonzero(record.mask)
    logits, labels = record.logits[indices], record.labels[indices]
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    of_truth = probabilities[np.arange(len(labels)), labels]
    return [
        Example(
            pixels=record.image(int(indices[i])),
            label=record.class_names[labels[i]],
            prediction=record.class_names[logits[i].argmax()],
            probability=float(of_truth[i]),
        )
        for i in np.argsort(of_truth, kind="stable")[:count]
    ]
