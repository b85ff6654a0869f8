"""Measures of how well the logits of a network fit the labels: accuracy, loss and calibration.

All functions are pure, need NumPy only, and compute in float64.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
"""Number of bootstrap samples."""

# Number of logits that are converted to float64 at once: 32 MiB.
_CHUNK = 2**22


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of the classes.

    Args:
        logits: float[..., K].

    Returns:
        float[..., K] of the same type. Each row sums to 1.

    >>> softmax(np.array([0.0, np.log(3.0)])).round(6)
    array([0.25, 0.75])
    """
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


class Scores(NamedTuple):
    """What each of N images contributes to the measures.

    Attributes:
        top1: bool[N], whether the label has the highest logit.
        top5: bool[N], whether the label has one of the five highest logits.
        nll: float64[N], negative log-likelihood of the label, in nats.
        brier: float64[N], sum over the classes of the squared differences between the
            probabilities and those of a perfect prediction, 0 to 2.
        prediction: int64[N], class with the highest logit.
        confidence: float64[N], probability of that class.
    """

    top1: np.ndarray
    top5: np.ndarray
    nll: np.ndarray
    brier: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray


def score(logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Return what each image contributes to the measures.

    If logits are equal, the class with the lower index ranks first, as in the training metrics.

    Args:
        logits: float[N, K].
        labels: int[N], 0 to K - 1.

    Raises:
        ValueError: There are no images, a label is not the index of a class, or the shapes do not
            fit each other.
    """
    _check(logits, labels)
    return Scores(*map(np.concatenate, zip(*_score_chunks(logits, labels), strict=True)))


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be [N, K] and labels [N], but they are {list(logits.shape)} and "
            f"{list(labels.shape)}"
        )
    if not len(labels):
        raise ValueError("there are no images to measure")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"labels must be from 0 to {logits.shape[1] - 1}, but they are from {labels.min()} to "
            f"{labels.max()}"
        )


def _score_chunks(logits: np.ndarray, labels: np.ndarray) -> Iterator[Scores]:
    size = max(1, _CHUNK // logits.shape[1])
    for start in range(0, len(labels), size):
        label = labels[start : start + size].astype(np.int64)
        rows = np.arange(len(label))
        z = logits[start : start + size].astype(np.float64)
        own = z[rows, label][:, None]
        first = np.arange(z.shape[1]) < label[:, None]
        rank = np.sum((z > own) | ((z == own) & first), axis=1)
        z -= z.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(z).sum(axis=1))
        nll = log_sum - z[rows, label]
        probabilities = np.exp(z - log_sum[:, None])
        of_label = probabilities[rows, label]
        prediction = z.argmax(axis=1)
        yield Scores(
            top1=rank < 1,
            top5=rank < 5,
            nll=nll,
            brier=np.sum(probabilities**2, axis=1) - of_label**2 + (1 - of_label) ** 2,
            prediction=prediction,
            confidence=probabilities[rows, prediction],
        )


class Measures(NamedTuple):
    """Measures of a network on some images.

    Attributes:
        images: Number of images.
        top1: Share of the images whose label has the highest logit, 0 to 1.
        top5: Share of the images whose label has one of the five highest logits, 0 to 1.
        nll: Mean negative log-likelihood of the labels, in nats.
        brier: Mean Brier score, 0 to 2: the squared differences are summed over all classes, also
            if there are only two.
        ece: Expected calibration error, 0 to 1, in 15 bins of equal width (Guo et al. 2017).
        ece_mass: The same in 15 bins that contain equal numbers of images (Nixon et al. 2019).
        intervals: 95 % confidence intervals of ``top1``, ``top5``, ``nll`` and ``brier``, see
            `interval`. The calibration errors have none, because they are biased: those of
            resampled images are larger than those of the images themselves.
    """

    images: int
    top1: float
    top5: float
    nll: float
    brier: float
    ece: float
    ece_mass: float
    intervals: Mapping[str, tuple[float, float]]


def measure(
    logits: np.ndarray, labels: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Measures:
    """Return the measures of a network on some images.

    Args:
        logits: float[N, K].
        labels: int[N], 0 to K - 1.
        resamples: Number of bootstrap samples, see `bootstrap_means`.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: As for `score`.
    """
    return summarize(score(logits, labels), resamples=resamples, seed=seed)


def summarize(scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> Measures:
    """Return the measures of images that have been scored; see `measure`."""
    averaged = {name: getattr(scores, name) for name in ("top1", "top5", "nll", "brier")}
    columns = np.stack(list(averaged.values()), axis=1).astype(np.float64)
    samples = bootstrap_means(columns, resamples=resamples, seed=seed)
    means = dict(zip(averaged, columns.mean(axis=0).tolist(), strict=True))
    ece, ece_mass = (
        calibration_error(_bins(scores.confidence, scores.top1, 15, equal_mass=equal_mass))
        for equal_mass in (False, True)
    )
    intervals = {
        name: interval(column) for name, column in zip(averaged, samples.T, strict=True)
    }
    return Measures(len(columns), **means, ece=ece, ece_mass=ece_mass, intervals=intervals)


def bootstrap_means(
    values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Return the means of resampled images.

    Each sample draws N of the N images with replacement: its indices are the next result of
    ``rng.integers(N, size=N)``, where ``rng`` is ``numpy.random.default_rng(seed)``. All M values
    of an image are drawn together, so that differences between columns are paired.

    Args:
        values: float64[N, M], M values for each image.
        resamples: Number of samples R.
        seed: Seed of the random numbers.

    Returns:
        float64[R, M].
    """
    rng = np.random.default_rng(seed)
    count = len(values)
    means = np.empty((resamples, values.shape[1]))
    for sample in means:
        weights = np.bincount(rng.integers(count, size=count), minlength=count)
        sample[:] = weights @ values / count
    return means


def interval(samples: np.ndarray) -> tuple[float, float]:
    """Return the 95 % confidence interval by the percentile method of the bootstrap.

    Its ends are the 2.5th and the 97.5th percentile of the samples, interpolated linearly.

    Args:
        samples: float64[R].
    """
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


class ReliabilityBin(NamedTuple):
    """The images whose confidence is in an interval.

    Attributes:
        low: Lower end of the interval, which does not belong to it.
        high: Upper end, which does.
        count: Number of images, at least 1.
        confidence: Mean probability of the predicted class, 0 to 1.
        accuracy: Share of correct predictions, 0 to 1.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15, *, equal_mass: bool = False
) -> list[ReliabilityBin]:
    """Return the bins of a reliability diagram, from low to high confidence.

    The confidence of an image is the probability of its predicted class. Bins without images are
    left out.

    Args:
        probabilities: float[N, K].
        labels: int[N], 0 to K - 1.
        bins: Number of bins.
        equal_mass: Whether the ends of the bins are quantiles of the confidences, so that the bins
            contain equal numbers of images. Images of equal confidence stay together. By default
            the bins divide the interval from 0 to 1 equally.

    Raises:
        ValueError: As for `score`.
    """
    _check(probabilities, labels)
    right = probabilities.argmax(axis=1) == labels
    confidence = probabilities.max(axis=1).astype(np.float64)
    return _bins(confidence, right, bins, equal_mass=equal_mass)


def _bins(
    confidence: np.ndarray, right: np.ndarray, bins: int, *, equal_mass: bool
) -> list[ReliabilityBin]:
    shares = np.linspace(0, 1, bins + 1)
    edges = np.quantile(confidence, shares) if equal_mass else shares
    number = np.searchsorted(edges[1:-1], confidence)
    counts, confidences, rights = (
        np.bincount(number, weights, minlength=bins) for weights in (None, confidence, right)
    )
    return [
        ReliabilityBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            count=int(counts[i]),
            confidence=float(confidences[i] / counts[i]),
            accuracy=float(rights[i] / counts[i]),
        )
        for i in np.flatnonzero(counts)
    ]


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean distance between confidence and accuracy, weighted by the images, 0 to 1."""
    total = sum(bin.count for bin in bins)
    return sum(bin.count * abs(bin.confidence - bin.accuracy) for bin in bins) / total


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the number of images of class i (row) that were taken for class j (column).

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


class ClassMeasures(NamedTuple):
    """How well a network does on one class.

    Attributes:
        name: Name of the class.
        images: Number of images of the class.
        precision: Share of the images predicted as this class that belong to it, 0 to 1. None if
            there are no such predictions.
        recall: Share of the images of the class that are predicted as it, 0 to 1. None if the
            class has no images.
        f1: Harmonic mean of both, 0 to 1. None if the class has neither images nor predictions.
    """

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


def per_class(matrix: np.ndarray, class_names: Sequence[str]) -> list[ClassMeasures]:
    """Return the measures of each class, in the order of the classes.

    Args:
        matrix: int64[K, K], as `confusion_matrix` returns it.
        class_names: K names.
    """
    right, images, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        ClassMeasures(
            name,
            int(images[k]),
            precision=_share(right[k], predicted[k]),
            recall=_share(right[k], images[k]),
            f1=_share(2 * right[k], images[k] + predicted[k]),
        )
        for k, name in enumerate(class_names)
    ]


def _share(part: np.integer, whole: np.integer) -> float | None:
    return float(part / whole) if whole else None
