"""Temperatures and thresholds have the properties that define them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from resnet_jax.inference.calibration import (
    Calibration,
    FittedOn,
    calibration_file,
    fit_temperature,
    fit_threshold,
    read_calibration,
    weights_digest,
    write_calibration,
)
from resnet_jax.inference.measures import measure, softmax


def examples(scale: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits float32[400, 5] and labels drawn from their softmax, with logits scaled."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(400, 5)) * 2
    labels = np.array([rng.choice(5, p=p) for p in softmax(logits)])
    return (scale * logits).astype(np.float32), labels


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0, 4.0, 40.0])
def test_temperature_minimizes_the_likelihood(scale: float) -> None:
    logits, labels = examples(scale)

    def nll(log_temperature: float) -> float:
        probabilities = softmax(logits.astype(np.float64) / math.exp(log_temperature))
        return float(log_loss(labels, probabilities, labels=range(5)))

    best = minimize_scalar(nll, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
    found = fit_temperature(logits, labels)
    assert math.log(found) == pytest.approx(best.x, abs=1e-6)
    # The labels come from the logits before they were scaled.
    assert found / scale == pytest.approx(1, abs=0.2)
    assert measure(logits / found, labels, resamples=2).top1 == measure(logits, labels).top1


def test_temperature_equals_that_of_scikit_learn() -> None:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Logits(ClassifierMixin, BaseEstimator):
        """A classifier whose features are its logits."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> "Logits":
            self.classes_ = np.unique(y)
            self.n_features_in_ = x.shape[1]
            return self

        def decision_function(self, x: np.ndarray) -> np.ndarray:
            return x

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(axis=1)

    logits, labels = examples(3.0)
    logits = logits.astype(np.float64)
    frozen = FrozenEstimator(Logits().fit(logits, labels))
    reference = CalibratedClassifierCV(frozen, method="temperature").fit(logits, labels)
    # scikit-learn minimizes numerically and stops early.
    np.testing.assert_allclose(
        softmax(logits / fit_temperature(logits, labels)),
        reference.predict_proba(logits),
        atol=1e-5,
    )


def test_temperatures_that_the_images_do_not_determine_are_errors() -> None:
    logits = np.eye(3) * 4
    with pytest.raises(ValueError, match="almost all of them are classified correctly"):
        fit_temperature(logits, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="no better than chance"):
        fit_temperature(logits, np.array([1, 2, 0]))


def lowest_by_search(confidence: np.ndarray, right: np.ndarray, accuracy: float) -> np.ndarray:
    """Return which images the lowest sufficient threshold keeps, by trying every confidence."""
    for threshold in np.unique(confidence):
        kept = confidence >= threshold
        if right[kept].mean() >= accuracy:
            return kept
    raise AssertionError


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 0.9, 0.95])
def test_threshold_is_the_lowest_that_reaches_the_accuracy(accuracy: float) -> None:
    rng = np.random.default_rng(3)
    # Rounding makes many confidences equal.
    confidence = rng.uniform(0.2, 1, 300).round(2)
    right = rng.uniform(size=300) < confidence
    threshold = fit_threshold(confidence, right, accuracy)
    np.testing.assert_array_equal(
        confidence >= threshold, lowest_by_search(confidence, right, accuracy)
    )


def test_threshold_of_known_examples() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    right = np.array([True, True, False, True])
    assert fit_threshold(confidence, right, 0.75) == 0
    assert fit_threshold(confidence, right, 0.8) == pytest.approx(0.75)
    # A lower threshold may do where a higher one does not.
    assert fit_threshold(confidence, ~right, 0.25) == 0
    with pytest.raises(ValueError, match=r"accuracy of 0.5: of the 1 images .* 0 are classified"):
        fit_threshold(confidence, ~right, 0.5)
    with pytest.raises(ValueError, match="from 0 to 1"):
        fit_threshold(confidence, right, 95)
    # Of two images with equal confidence, none can be kept alone.
    assert fit_threshold(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]), 0.9) == 0.7


FITTED = Calibration(
    temperature=1.7,
    threshold=0.6,
    accuracy=0.95,
    temperature_fitted_on=FittedOn("photos", "validation", 40, "2026-11-28T10:00:00+00:00"),
    threshold_fitted_on=FittedOn("photos", "validation", 40, "2026-11-28T10:00:00+00:00"),
)


def run_directory(path: Path) -> Path:
    (path / "checkpoints" / "20").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def test_calibration_is_stored_in_the_run_and_only_for_its_weights(tmp_path: Path) -> None:
    run = run_directory(tmp_path / "run")
    variables = {"params": {"head": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}}}
    others = {"params": {"head": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}}
    assert read_calibration(run, variables) == Calibration()
    stored = Calibration(**{**vars(FITTED), "weights": weights_digest(variables)})
    file = calibration_file(run / "checkpoints" / "20")
    assert file == run.absolute() / "calibration.json"
    write_calibration(file, stored)
    plain = json.loads(file.read_text())
    assert plain["schema_version"] == 1
    assert plain["temperature_fitted_on"]["images"] == 40
    for path in (run, run / "checkpoints" / "20"):
        assert read_calibration(path, variables) == stored
    with pytest.warns(UserWarning, match="fitted with other weights and is not used"):
        assert read_calibration(run, others) == Calibration()
    assert [path.name for path in run.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "calibration.json: "),
        ("[]", "no schema_version"),
        ('{"schema_version": 2}', "schema version 2"),
        ('{"schema_version": 1, "heat": 2}', "heat"),
        ('{"schema_version": 1, "temperature": 0}', "must be positive, but it is 0"),
        ('{"schema_version": 1, "temperature": "hot"}', "cannot be read"),
        ('{"schema_version": 1, "threshold": 95}', "from 0 to 1"),
        ('{"schema_version": 1, "threshold_fitted_on": {}}', "missing"),
    ],
)
def test_a_damaged_calibration_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    run = run_directory(tmp_path / "run")
    (run / "calibration.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_calibration(run, {"params": {"head": {}}})


def test_directories_of_other_kinds_have_no_calibration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert calibration_file(tmp_path) is None
    assert calibration_file("resnet50.a1_in1k") is None


def test_published_weights_are_no_checkpoint_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_directory(tmp_path / "run"))
    assert calibration_file("resnet50.a1_in1k") is None
    assert calibration_file("checkpoints/20") == tmp_path / "run" / "calibration.json"
