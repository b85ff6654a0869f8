"""What a report shows of an evaluation: its measures, its classes, and a choice of its images."""

import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from resnet_jax.inference.explain import overlay
from resnet_jax.inference.measures import (
    ClassMeasures,
    ReliabilityBin,
    Scores,
    confusion_matrix,
    per_class,
    reliability_bins,
    score,
    softmax,
    summarize,
)
from resnet_jax.report.pictures import Picture, thumbnail
from resnet_jax.report.records import EvaluationRecord

MAX_MATRIX_CLASSES = 50
"""Most classes of a confusion matrix that is shown as a whole."""

_MAX_CONFUSIONS = 60
_MAX_GALLERY = 12
# Images in one cell, in all cells, and the largest side of theirs and of those in the galleries.
_MAX_IN_CELL, _MAX_IN_CELLS = 12, 600
_CELL_SIDE, _GALLERY_SIDE = 96, 224


class Example(NamedTuple):
    """An image and what the network made of it.

    Attributes:
        name: Name of the image.
        label: Name of its true class.
        prediction: Name of the class that the network chose.
        confidence: Probability of that class, 0 to 1.
        of_truth: Probability of the true class, 0 to 1.
        picture: The image.
        heat: The image under the heatmap of the chosen class, or None.
    """

    name: str
    label: str
    prediction: str
    confidence: float
    of_truth: float
    picture: Picture
    heat: Picture | None = None


class Cell(NamedTuple):
    """The images of one class that were taken for one class.

    Attributes:
        row: Index of the true class.
        column: Index of the predicted class.
        label: Name of the true class.
        prediction: Name of the predicted class.
        count: Number of images.
        share: Their share of the images of the true class, 0 to 1.
        examples: Some of the images: the most confident mistakes, or, if the prediction is right,
            the least confident ones.
    """

    row: int
    column: int
    label: str
    prediction: str
    count: int
    share: float
    examples: Sequence[Example]

    @property
    def anchor(self) -> str:
        """Name of the cell within the page."""
        return f"cell-{self.row}-{self.column}"


class ClassRow(NamedTuple):
    """A class in the table of classes.

    Attributes:
        measures: Images, precision, recall and F1.
        errors: Number of images of the class that were taken for another one.
        confusion: The most frequent of these confusions, or None.
    """

    measures: ClassMeasures
    errors: int
    confusion: Cell | None


class Measure(NamedTuple):
    """A number with its name and, if it has one, its confidence interval, all for people."""

    name: str
    value: str
    interval: str


@dataclasses.dataclass(frozen=True)
class EvaluationView:
    """What a report shows of an evaluation.

    Attributes:
        split: Name of the evaluated images.
        num_images: Number of images.
        num_errors: Number of images that were taken for another class.
        num_skipped: Number of images that could not be read.
        measures: Accuracies, losses and calibration errors.
        class_names: K names.
        cells: The cells of the matrix that have images, by row and column. If there are too many
            classes for a matrix, only the most frequent confusions.
        confusions: The most frequent confusions, the most frequent first.
        has_matrix: Whether the matrix is shown as a whole.
        sizes: Number of images of each class.
        error_rates: Share of them that were taken for another class, 0 to 1; 0 without images.
        long_names: Whether the names of the classes are too long to stand side by side.
        classes: The classes, the lowest F1 first.
        worst: The mistakes whose true class got the lowest probability, the worst first.
        confident: The mistakes whose predicted class got the highest probability. There are none if
            ``worst`` has all mistakes.
        unsure: The correct predictions with the lowest probability.
        bins: The bins of the reliability diagram.
        explained: Whether the examples have heatmaps.
        problem: Why there are no heatmaps although they were asked for, or an empty string.
    """

    split: str
    num_images: int
    num_errors: int
    num_skipped: int
    measures: Sequence[Measure]
    class_names: Sequence[str]
    cells: dict[tuple[int, int], Cell]
    confusions: Sequence[Cell]
    has_matrix: bool
    sizes: Sequence[int]
    error_rates: Sequence[float]
    long_names: bool
    classes: Sequence[ClassRow]
    worst: Sequence[Example]
    confident: Sequence[Example]
    unsure: Sequence[Example]
    bins: Sequence[ReliabilityBin]
    explained: bool
    problem: str


def view(record: EvaluationRecord) -> EvaluationView:
    """Return what a report shows of an evaluation; reads the chosen images."""
    indices = np.flatnonzero(record.mask)
    labels, logits = record.labels[indices].astype(np.int64), record.logits[indices]
    scores = score(logits, labels)
    matrix = confusion_matrix(labels, scores.prediction, len(record.class_names))
    wrong = np.flatnonzero(scores.prediction != labels)
    worst = wrong[np.argsort(-scores.nll[wrong], kind="stable")][:_MAX_GALLERY]
    confident = wrong[np.argsort(-scores.confidence[wrong], kind="stable")]
    # The same images would be shown twice if all mistakes are among the worst.
    confident = confident[: _MAX_GALLERY if len(wrong) > _MAX_GALLERY else 0]
    right = np.flatnonzero(scores.prediction == labels)
    unsure = right[np.argsort(scores.confidence[right], kind="stable")][:_MAX_GALLERY]
    confusions = _most_confused(matrix)
    has_matrix = len(matrix) <= MAX_MATRIX_CLASSES
    shown = list(zip(*np.nonzero(matrix), strict=True)) if has_matrix else confusions
    members = _members(matrix, shown, labels, scores)

    def picture(position: int, side: int) -> Picture:
        return thumbnail(record.image(int(indices[position])), side)

    mistakes = np.unique(np.concatenate([worst, confident]))
    gallery = np.concatenate([mistakes, unsure])
    behind = np.unique(np.concatenate([np.zeros(0, np.int64), *members.values()]))
    with ThreadPoolExecutor(thread_name_prefix="report") as pool:
        large, small = (
            dict(zip(chosen, pool.map(partial(picture, side=side), chosen), strict=True))
            for chosen, side in ((gallery, _GALLERY_SIDE), (behind, _CELL_SIDE))
        )
    heat, problem = _heat(record, indices, mistakes, scores.prediction)

    def example(position: int, pictures: dict[int, Picture]) -> Example:
        return Example(
            name=record.name(int(indices[position])),
            label=record.class_names[labels[position]],
            prediction=record.class_names[scores.prediction[position]],
            confidence=float(scores.confidence[position]),
            of_truth=float(np.exp(-scores.nll[position])),
            picture=pictures[position],
            heat=heat.get(position) if pictures is large else None,
        )

    images = matrix.sum(axis=1)
    cells = {
        (i, j): Cell(
            row=int(i),
            column=int(j),
            label=record.class_names[i],
            prediction=record.class_names[j],
            count=int(matrix[i, j]),
            share=float(matrix[i, j] / images[i]),
            examples=[example(position, small) for position in members.get((i, j), ())],
        )
        for i, j in shown
    }
    return EvaluationView(
        split=record.split,
        num_images=len(indices),
        num_errors=len(wrong),
        num_skipped=len(record.mask) - len(indices),
        measures=_measures(scores, len(matrix)),
        class_names=record.class_names,
        cells=cells,
        confusions=[cells[pair] for pair in confusions],
        has_matrix=has_matrix,
        sizes=images.tolist(),
        error_rates=((images - np.diag(matrix)) / np.maximum(images, 1)).tolist(),
        long_names=max(map(len, record.class_names)) > 3,
        classes=_classes(matrix, record.class_names, cells),
        worst=[example(position, large) for position in worst],
        confident=[example(position, large) for position in confident],
        unsure=[example(position, large) for position in unsure],
        bins=reliability_bins(softmax(logits), labels),
        explained=bool(heat),
        problem=problem,
    )


def _most_confused(matrix: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of classes that are confused most often, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-wrong[rows, columns], kind="stable")[:_MAX_CONFUSIONS]
    return [(int(rows[i]), int(columns[i])) for i in order]


def _members(
    matrix: np.ndarray,
    pairs: Iterable[tuple[int, int]],
    labels: np.ndarray,
    scores: Scores,
) -> dict[tuple[int, int], np.ndarray]:
    """Return the positions of the images to show for pairs of a true and a predicted class.

    There are few enough of them for a page, and mistakes come before correct predictions.
    """
    pairs = sorted(pairs, key=lambda pair: (pair[0] == pair[1], -matrix[pair]))
    # Each cell gets the same number of images, as far as it has them.
    counts = np.array([matrix[pair] for pair in pairs], np.int64)
    limit = next(
        (n for n in range(_MAX_IN_CELL, 1, -1) if np.minimum(counts, n).sum() <= _MAX_IN_CELLS), 1
    )
    key = labels * len(matrix) + scores.prediction
    members = {}
    for row, column in pairs[:_MAX_IN_CELLS]:
        positions = np.flatnonzero(key == row * len(matrix) + column)
        confidence = scores.confidence[positions]
        order = np.argsort(confidence if row == column else -confidence, kind="stable")
        members[row, column] = positions[order][:limit]
    return members


def _heat(
    record: EvaluationRecord, indices: np.ndarray, chosen: np.ndarray, predictions: np.ndarray
) -> tuple[dict[int, Picture], str]:
    """Return pictures of heatmaps by position; or none, and why they cannot be computed."""
    if record.explain is None or not len(chosen):
        return {}, ""
    images = np.stack([record.image(int(indices[position])) for position in chosen])
    try:
        maps = np.asarray(record.explain(images, predictions[chosen]))
    except (RuntimeError, ValueError) as error:
        # The heatmaps may need more memory than is left, and a run must not lose its report.
        return {}, f"{type(error).__name__}: {error}".partition("\n")[0]
    return {
        position: thumbnail(overlay(_enlarged(image), one), _GALLERY_SIDE)
        for position, image, one in zip(chosen, images, maps, strict=True)
    }, ""


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Return a small image with each pixel repeated, so that a heatmap on it is smooth."""
    factor = max(1, _GALLERY_SIDE // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _classes(
    matrix: np.ndarray, class_names: Sequence[str], cells: dict[tuple[int, int], Cell]
) -> list[ClassRow]:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    errors, columns = wrong.sum(axis=1), wrong.argmax(axis=1)
    rows = []
    for k, measures in enumerate(per_class(matrix, class_names)):
        j, count = int(columns[k]), int(wrong[k, columns[k]])
        confusion = cells.get((k, j)) or Cell(
            k, j, class_names[k], class_names[j], count, count / max(1, measures.images), ()
        )
        rows.append(ClassRow(measures, int(errors[k]), confusion if count else None))
    # Classes without images and predictions have no F1, and come last.
    return sorted(rows, key=lambda row: 2.0 if row.measures.f1 is None else row.measures.f1)


def _measures(scores: Scores, num_classes: int) -> list[Measure]:
    found = summarize(scores)

    def measure(name: str, key: str, form: str) -> Measure:
        value, low, high = map(form.format, (getattr(found, key), *found.intervals[key]))
        return Measure(name, value, f"{low} to {high}")

    return [
        measure("Top-1 accuracy", "top1", "{:.2%}"),
        *([measure("Top-5 accuracy", "top5", "{:.2%}")] if num_classes > 5 else []),
        measure("Log-likelihood loss (nats)", "nll", "{:.4f}"),
        measure("Brier score", "brier", "{:.4f}"),
        Measure("Calibration error, equal widths", f"{found.ece:.2%}", ""),
        Measure("Calibration error, equal counts", f"{found.ece_mass:.2%}", ""),
    ]
