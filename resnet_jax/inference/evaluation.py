"""Evaluation of a classifier on labeled images, and its robustness to corruptions."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.source import UnreadableError
from resnet_jax.data.labeled import LabeledImages
from resnet_jax.inference.calibration import (
    Calibration,
    FittedOn,
    fit_temperature,
    fit_threshold,
    weights_digest,
)
from resnet_jax.inference.class_names import match_classes
from resnet_jax.inference.classifier import Classifier
from resnet_jax.inference.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from resnet_jax.inference.measures import (
    ClassMeasures,
    Measures,
    Scores,
    confusion_matrix,
    per_class,
    score,
    summarize,
)
from resnet_jax.inference.stream import Tta, stream

SCHEMA_VERSION = 1
"""Version of the JSON that `Evaluation.to_json` returns."""


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The logits of a classifier for N labeled images, and the measures that follow from them.

    Attributes:
        data: Name of the data set.
        split: Name of the split.
        class_names: K names, in the order of the logits.
        names: Where each image comes from.
        labels: int64[N], 0 to K - 1. Those of skipped images mean nothing.
        logits: float32[N, K], before the temperature. Those of skipped images are 0.
        mask: bool[N], False for images that were skipped because they cannot be read.
        unreadable: Names of the skipped images, with the reason for each.
        calibration: Calibration of the classifier. The measures use its temperature.
        seconds: Wall time, with compilation.
    """

    data: str
    split: str
    class_names: tuple[str, ...]
    names: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    mask: np.ndarray
    unreadable: dict[str, str]
    calibration: Calibration
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Throughput from files to logits, with compilation, in images per second."""
        return len(self.names) / self.seconds

    @property
    def calibrated_logits(self) -> np.ndarray:
        """The logits divided by the temperature, float32[N, K]."""
        return self.logits / np.float32(self.calibration.temperature)

    @functools.cached_property
    def scores(self) -> Scores:
        """What each image that could be read contributes to the measures."""
        temperature = np.float32(self.calibration.temperature)
        return score(self.logits[self.mask] / temperature, self.labels[self.mask])

    @functools.cached_property
    def measures(self) -> Measures:
        """Accuracy, likelihood and calibration, with confidence intervals."""
        return summarize(self.scores)

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """Number of images of class i (row) that were taken for class j (column), int64[K, K]."""
        return confusion_matrix(
            self.labels[self.mask], self.scores.prediction, len(self.class_names)
        )

    @property
    def classes(self) -> list[ClassMeasures]:
        """Precision, recall and F1 of each class."""
        return per_class(self.matrix, self.class_names)

    def with_calibration(self, calibration: Calibration) -> "Evaluation":
        """Return the evaluation of the same images with another calibration."""
        return dataclasses.replace(self, calibration=calibration)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the logits as JSON values, with a schema version.

        The confusion matrix is a list of its cells above 0: true class, predicted class, images.
        """
        measures = self.measures._asdict()
        measures["intervals"] = {name: list(ends) for name, ends in measures["intervals"].items()}
        certain = None
        if self.calibration.threshold is not None:
            kept = self.scores.confidence >= self.calibration.threshold
            certain = {
                "share": float(kept.mean()),
                "accuracy": float(self.scores.top1[kept].mean()) if kept.any() else None,
            }
        return {
            "schema_version": SCHEMA_VERSION,
            "data": self.data,
            "split": self.split,
            "measures": measures,
            "certain": certain,
            "calibration": self.calibration.to_json(),
            "classes": [row._asdict() for row in self.classes],
            "confusion_matrix": [
                [int(i), int(j), int(self.matrix[i, j])]
                for i, j in zip(*np.nonzero(self.matrix), strict=True)
            ],
            "unreadable": self.unreadable,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }


def evaluate(
    classifier: Classifier,
    data: LabeledImages,
    *,
    classes: Literal["model", "data"] = "model",
    on_unreadable: Literal["fail", "skip"] = "fail",
    tta: Tta = "none",
    progress: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return the evaluation of a classifier on labeled images.

    The images are prepared as the classifier does it, whatever the preprocessing in training on
    these data was.

    Args:
        classifier: The classifier. Classes of the data are found among its classes by their names,
            see `match_classes`.
        data: The images, see `resnet_jax.data.open_labeled`.
        classes: ``"model"`` compares the logits of all classes of the model. ``"data"`` compares
            only those of the classes that the data have, as ImageNet-A and ImageNet-R demand.
        on_unreadable: What to do with images that cannot be read: ``"fail"`` raises an error, and
            ``"skip"`` leaves them out of every measure.
        tta: Views of an image over which its logits are averaged, see `stream`.
        progress: Called after each image.

    Raises:
        DataError: An image cannot be read and is not to be skipped, none can be read, or a label is
            not the index of a class.
        ValueError: The classifier has no head, or the classes of the data are not those of the
            model.
        FloatingPointError: The network returns values that are not finite.
    """
    matched = match_classes(data.class_names, classifier.class_names)
    count, total = len(data), len(classifier.class_names)
    names = [""] * count
    labels, mask = np.zeros(count, np.int64), np.zeros(count, bool)
    logits = np.zeros((count, total), np.float32)
    unreadable: dict[str, str] = {}
    positions: list[int] = []

    def skip(index: int, name: str, reason: str) -> None:
        if on_unreadable == "fail":
            raise DataError(
                f"{name}: {reason}; repair or remove it, or leave such images out with "
                "on_unreadable='skip' (--on-unreadable skip)"
            )
        names[index], unreadable[name] = name, reason
        progress()

    def images() -> Iterator[bytes | np.ndarray]:
        for index in range(count):
            try:
                image, label, names[index] = data[index]
            except UnreadableError as error:
                skip(index, error.name, error.reason)
                continue
            labels[index] = matched[label]
            positions.append(index)
            yield image

    started = time.perf_counter()
    for item in stream(classifier, images(), tta=tta):
        index = positions[item.index]
        if item.logits is None:
            skip(index, names[index], item.error)
            continue
        logits[index], mask[index] = item.logits, True
        progress()
    seconds = time.perf_counter() - started
    if not mask.any():
        raise DataError(f"none of the {count} images of {data.name} can be read")
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise FloatingPointError(
            f"the network returns values that are not finite for {len(bad)} of {count} images, "
            f"such as {names[bad[0]]}; the weights are damaged, or their type is too small"
        )
    class_names = classifier.class_names
    if classes == "data":
        present = np.sort(matched)
        class_names = tuple(class_names[k] for k in present)
        logits, labels = logits[:, present], np.searchsorted(present, labels)
    return Evaluation(
        data=data.name,
        split=data.split,
        class_names=class_names,
        names=names,
        labels=labels,
        logits=logits,
        mask=mask,
        unreadable=unreadable,
        calibration=classifier.calibration,
        seconds=seconds,
    )


def evaluate_corruptions(
    classifier: Classifier,
    data: LabeledImages,
    *,
    classes: Literal["model", "data"] = "model",
    on_unreadable: Literal["fail", "skip"] = "fail",
    tta: Tta = "none",
    progress: Callable[[], None] = lambda: None,
) -> dict[str, list[Measures]]:
    """Return the measures on corrupted images, for each corruption at severities 1 to 5.

    The data are read and evaluated 40 times.

    Args:
        classifier: See `evaluate`.
        data: See `evaluate`.
        classes: See `evaluate`.
        on_unreadable: See `evaluate`.
        tta: See `evaluate`.
        progress: Called after each image.

    Raises:
        DataError: As for `evaluate`.
        ValueError: As for `evaluate`.
    """
    return {
        corruption: [
            evaluate(
                corrupted(classifier, corruption, severity),
                data,
                classes=classes,
                on_unreadable=on_unreadable,
                tta=tta,
                progress=progress,
            ).measures
            for severity in SEVERITIES
        ]
        for corruption in CORRUPTIONS
    }


def fit_calibration(
    classifier: Classifier,
    evaluation: Evaluation,
    *,
    temperature: bool = True,
    accuracy: float | None = None,
    date: str,
) -> Calibration:
    """Return a calibration that is fitted on a validation split.

    Args:
        classifier: The classifier. Its own calibration remains where it is not fitted anew.
        evaluation: Evaluation of the classifier on the validation split, with all its classes.
        temperature: Whether to fit the temperature.  A threshold of before is then dropped, because
            it was for other probabilities.
        accuracy: Accuracy that the certain predictions are to reach, for a threshold. None fits no
            threshold.
        date: Date and time in UTC, as in ISO 8601.

    Raises:
        ValueError: The images determine no temperature, or no threshold reaches the accuracy.
    """
    mask, labels = evaluation.mask, evaluation.labels
    fitted_on = FittedOn(evaluation.data, evaluation.split, int(mask.sum()), date)
    weights = weights_digest(classifier.variables)
    found = dataclasses.replace(classifier.calibration, weights=weights)
    if temperature:
        found = Calibration(
            temperature=fit_temperature(evaluation.logits[mask], labels[mask]),
            temperature_fitted_on=fitted_on,
            weights=weights,
        )
    if accuracy is not None:
        scores = evaluation.with_calibration(found).scores
        found = dataclasses.replace(
            found,
            threshold=fit_threshold(scores.confidence, scores.top1, accuracy),
            accuracy=accuracy,
            threshold_fitted_on=fitted_on,
        )
    return found
