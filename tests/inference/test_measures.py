"""The measures agree with scikit-learn and with their definitions."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from resnet_jax.inference.measures import (
    ReliabilityBin,
    bootstrap_means,
    calibration_error,
    confusion_matrix,
    measure,
    per_class,
    reliability_bins,
    score,
    softmax,
)

N, K = 500, 7


@pytest.fixture(scope="module")
def examples() -> tuple[np.ndarray, np.ndarray]:
    """Logits float32[N, K] that are right more often than not, and overconfident."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N)
    logits = rng.normal(size=(N, K)).astype(np.float32) * 3
    logits[np.arange(N), labels] += 3
    return logits, labels


def test_measures_equal_those_of_scikit_learn(examples: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = examples
    found = measure(logits, labels)
    probabilities = softmax(logits.astype(np.float64))
    classes = np.arange(K)
    reference = {
        "top1": metrics.accuracy_score(labels, logits.argmax(axis=1)),
        "top5": metrics.top_k_accuracy_score(labels, logits, k=5),
        "nll": metrics.log_loss(labels, probabilities, labels=classes),
        "brier": metrics.brier_score_loss(labels, probabilities, labels=classes),
    }
    for name, value in reference.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-12), name
    assert found.images == N


@pytest.mark.parametrize("equal_mass", [False, True])
def test_bins_equal_those_of_scikit_learn(
    examples: tuple[np.ndarray, np.ndarray], equal_mass: bool
) -> None:
    logits, labels = examples
    probabilities = softmax(logits.astype(np.float64))
    found = reliability_bins(probabilities, labels, equal_mass=equal_mass)
    right = probabilities.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(
        right,
        probabilities.max(axis=1),
        n_bins=15,
        strategy="quantile" if equal_mass else "uniform",
    )
    np.testing.assert_allclose([bin.confidence for bin in found], confidence, rtol=1e-12)
    np.testing.assert_allclose([bin.accuracy for bin in found], accuracy, rtol=1e-12)
    assert sum(bin.count for bin in found) == N
    if equal_mass:
        assert {bin.count for bin in found} <= {N // 15, N // 15 + 1}
    measured = measure(logits, labels)
    expected = measured.ece_mass if equal_mass else measured.ece
    assert calibration_error(found) == pytest.approx(expected, rel=1e-12)


def test_calibration_error_of_a_known_example() -> None:
    # Confidence 0.9 with one of two right, and 0.6 with both right: (0.4 + 0.4) / 2.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    bins = reliability_bins(probabilities, np.array([0, 1, 0, 0]), bins=10)
    assert [bin.count for bin in bins] == [2, 2]
    assert calibration_error(bins) == pytest.approx(0.4)
    # The upper end belongs to a bin.
    assert bins[0][:3] == pytest.approx(ReliabilityBin(0.5, 0.6, 2, 0.6, 1)[:3])


def test_equal_logits_rank_by_index_and_extreme_ones_stay_finite() -> None:
    scores = score(np.zeros((6, 6), np.float32), np.arange(6))
    assert scores.top1.tolist() == [True, *[False] * 5]
    assert scores.top5.tolist() == [*[True] * 5, False]
    far = score(np.array([[1e4, -1e4]], np.float32), np.array([1]))
    assert far.nll == pytest.approx([2e4])
    assert far.brier == pytest.approx([2])


def test_the_bootstrap_follows_its_definition() -> None:
    values = np.random.default_rng(1).normal(size=(20, 2))
    rng = np.random.default_rng(7)
    expected = [values[rng.integers(20, size=20)].mean(axis=0) for _ in range(5)]
    found = bootstrap_means(values, resamples=5, seed=7)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_interval_of_accuracy_is_that_of_the_binomial_distribution(
    examples: tuple[np.ndarray, np.ndarray],
) -> None:
    found = measure(*examples)
    low, high = found.intervals["top1"]
    half = 1.96 * np.sqrt(found.top1 * (1 - found.top1) / N)
    # 1,000 samples place each end within a few percent of the width.
    assert low == pytest.approx(found.top1 - half, abs=0.15 * half)
    assert high == pytest.approx(found.top1 + half, abs=0.15 * half)
    assert set(found.intervals) == {"top1", "top5", "nll", "brier"}
    assert measure(*examples) == found


def test_classes_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    # Class 3 has no images, class 4 no predictions, and class 5 neither.
    labels = rng.choice([0, 1, 2, 4], 60)
    predictions = rng.choice([0, 1, 2, 3], 60)
    matrix = confusion_matrix(labels, predictions, 6)
    np.testing.assert_array_equal(
        matrix, metrics.confusion_matrix(labels, predictions, labels=range(6))
    )
    rows = per_class(matrix, [f"class{k}" for k in range(6)])
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(6), zero_division=np.nan
    )
    for name, reference in (("precision", precision), ("recall", recall), ("f1", f1)):
        found = [getattr(row, name) for row in rows]
        np.testing.assert_allclose(np.array(found, float), reference, rtol=1e-12)
    assert [row.images for row in rows] == support.tolist()
    assert rows[5] == ("class5", 0, None, None, None)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "no images"),
        (np.zeros((2, 3)), np.array([0, 3]), "from 0 to 2, but they are from 0 to 3"),
        (np.zeros((2, 3)), np.array([-1, 0]), "from -1 to 0"),
        (np.zeros((2, 3)), np.zeros(3, int), r"\[2, 3\] and \[3\]"),
    ],
)
def test_labels_that_fit_nothing_are_errors(
    logits: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(logits, labels)
