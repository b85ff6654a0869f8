"""Calibration: a temperature for the probabilities, and a threshold for the class "uncertain".

Both are fitted on a validation split and stored in the run directory, as ``calibration.json``.
"""

import dataclasses
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnet_jax.inference.rundir import run_directory
from resnet_jax.inference.schema_version import check_version
from resnet_jax.one_line import one_line

CALIBRATION_FILE = "calibration.json"
"""File in the run directory that holds the `Calibration`."""

SCHEMA_VERSION = 1
"""Version of the JSON that `Calibration.to_json` writes."""

UNCERTAIN = "uncertain"
"""Decision for an image whose most probable class is less probable than the threshold."""

# Temperatures beyond these limits mean that the data do not determine one.
_LOWEST, _HIGHEST = 0.01, 100.0
# Number of logits that are converted to float64 at once: 32 MiB.
_CHUNK = 2**22


@dataclasses.dataclass(frozen=True)
class FittedOn:
    """The images that a value was fitted on.

    Attributes:
        data: Name of the data set, such as the path of its folder.
        split: Name of the split.
        images: Number of images.
        date: Date and time in UTC, as in ISO 8601.
    """

    data: str
    split: str
    images: int
    date: str


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How the logits of a network become probabilities, and when a prediction is uncertain.

    Attributes:
        temperature: Number that the logits are divided by before the softmax. Values above 1 make
            the probabilities less extreme. No value changes which class is the most probable.
        threshold: Lowest probability of the most probable class at which a prediction is certain,
            0 to 1. It applies to probabilities with this temperature. None if there is none.
        accuracy: Accuracy that the certain predictions reach on the images of the threshold, which
            was asked for, 0 to 1. None if there is no threshold.
        temperature_fitted_on: Images of the temperature. None if it was not fitted.
        threshold_fitted_on: Images of the threshold. None if it was not fitted.
        weights: Digest of the weights, see `weights_digest`. It is empty if the calibration holds
            for any weights.

    Raises:
        ValueError: The temperature is not positive, or the threshold is not between 0 and 1.
    """

    temperature: float = 1.0
    threshold: float | None = None
    accuracy: float | None = None
    temperature_fitted_on: FittedOn | None = None
    threshold_fitted_on: FittedOn | None = None
    weights: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"the temperature must be positive, but it is {self.temperature}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"the threshold must be from 0 to 1, but it is {self.threshold}")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, with a schema version."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, plain: Any) -> "Calibration":
        """Return the calibration that `to_json` of this version wrote.

        Raises:
            ValueError: A newer version of resnet_jax wrote it, or it is not a calibration.
        """
        check_version(plain, SCHEMA_VERSION, "calibration")
        values = {name: value for name, value in plain.items() if name != "schema_version"}
        try:
            for name in ("temperature_fitted_on", "threshold_fitted_on"):
                if values.get(name) is not None:
                    values[name] = FittedOn(**values[name])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the calibration cannot be read: {error}") from None


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimizes the negative log-likelihood of some images.

    The inverse temperature b has the derivative g(b) = mean(E[z] - z of the label), where the
    expectation E is over the softmax of b z. It never decreases, because its own derivative is the
    mean variance of z. Newton's method on the logarithm of the temperature finds its zero in
    float64, between bounds that close in on it.

    Args:
        logits: float[N, K] of images that the network was not trained on.
        labels: int[N], 0 to K - 1.

    Returns:
        The temperature, 0.01 to 100.

    Raises:
        ValueError: No temperature in this range is best: all images are classified correctly, or
            the classification is no better than chance.

    Reference:
        Guo et al. 2017, arXiv:1706.04599.
    """
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    if _slope(logits, labels, low)[0] <= 0:
        raise ValueError(
            f"the lower the temperature, the better it fits these {len(labels)} images, because "
            "almost all of them are classified correctly; use more images, or harder ones"
        )
    if _slope(logits, labels, high)[0] >= 0:
        raise ValueError(
            f"the higher the temperature, the better it fits these {len(labels)} images, because "
            "the classification is no better than chance; check that the labels are right"
        )
    s = 0.0
    for _ in range(100):
        slope, curvature = _slope(logits, labels, s)
        # The slope is positive where the temperature is too low.
        low, high = (s, high) if slope > 0 else (low, s)
        step = slope / curvature if curvature > 0 else math.inf
        after = s + step if low < s + step < high else (low + high) / 2
        if abs(after - s) < 1e-12:
            break
        s = after
    return math.exp(s)


def _slope(logits: np.ndarray, labels: np.ndarray, s: float) -> tuple[float, float]:
    """Return g at a temperature of exp(s), and minus its derivative by s."""
    inverse = math.exp(-s)
    slope = curvature = 0.0
    for z, label in _chunks(logits, labels):
        scaled = inverse * z
        p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        mean = np.sum(p * z, axis=1)
        slope += np.sum(mean - z[np.arange(len(z)), label])
        curvature += np.sum(p * (z - mean[:, None]) ** 2)
    return slope / len(labels), inverse * curvature / len(labels)


def _chunks(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    size = max(1, _CHUNK // logits.shape[1])
    for start in range(0, len(labels), size):
        yield logits[start : start + size].astype(np.float64), labels[start : start + size]


def fit_threshold(confidence: np.ndarray, right: np.ndarray, accuracy: float) -> float:
    """Return the lowest threshold at which the certain predictions reach an accuracy.

    A prediction is certain if its confidence is at least the threshold.  Among the thresholds
    whose certain predictions are right often enough, the lowest one keeps the most images.  Any
    value between two neighboring confidences keeps the same images; the middle is returned, so
    that rounding does not matter, and 0 if all images are kept.

    The accuracy holds on the images of the fit. On others it is lower by chance as often as higher,
    the more so the fewer images there are.

    Args:
        confidence: float[N], probability of the most probable class, 0 to 1.
        right: bool[N], whether the prediction is right.
        accuracy: The share of right predictions that is asked for, 0 to 1.

    Raises:
        ValueError: There are no images, the accuracy is not between 0 and 1, or no threshold
            reaches it.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"the accuracy must be from 0 to 1, but it is {accuracy}")
    if not len(confidence):
        raise ValueError("there are no images to fit a threshold on")
    order = np.argsort(-confidence, kind="stable")
    values = confidence[order].astype(np.float64)
    kept = np.arange(1, len(values) + 1)
    reached = np.cumsum(right[order]) >= accuracy * kept
    # Images of equal confidence are kept together.
    last = np.append(values[1:] < values[:-1], True)
    possible = np.flatnonzero(reached & last)
    if not len(possible):
        raise ValueError(
            f"no threshold reaches an accuracy of {accuracy:g}: "
            f"{_top_group(values, right[order])}; ask for a lower accuracy"
        )
    lowest = possible[-1]
    if lowest == len(values) - 1:
        return 0.0
    return float(values[lowest] + values[lowest + 1]) / 2


def _top_group(values: np.ndarray, right: np.ndarray) -> str:
    top = values == values[0]
    return (
        f"of the {top.sum()} images with the highest confidence of {values[0]:.4f}, "
        f"{right[top].sum()} are classified correctly"
    )


def weights_digest(variables: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the parameters of the head, in hexadecimal.

    A calibration is for the weights that it was fitted with.  Training changes the head in every
    step, and its few parameters are hashed quickly.

    Args:
        variables: Variables of the network with ``params``.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"].get("head", {})):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()


def calibration_file(path: str | os.PathLike[str]) -> Path | None:
    """Return where the calibration of a run, or of one of its checkpoints, is stored.

    Args:
        path: The directory. If it is neither a run nor a checkpoint, the result is None.
    """
    directory = run_directory(Path(path).expanduser())
    return None if directory is None else directory / CALIBRATION_FILE


def read_calibration(path: str | os.PathLike[str], variables: Mapping[str, Any]) -> Calibration:
    """Return the calibration that is stored with a run.

    Args:
        path: The run directory, or one of its checkpoints. Anything else has no calibration.
        variables: Variables of the network.

    Returns:
        The calibration. It is the default one, with a warning, if the stored one was fitted with
        other weights, as after more training.

    Raises:
        ValueError: The file is damaged, or a newer version of resnet_jax wrote it.
    """
    file = calibration_file(path)
    # Without a head there are no probabilities.
    if file is None or not file.exists() or "head" not in variables["params"]:
        return Calibration()
    try:
        calibration = Calibration.from_json(json.loads(file.read_text("utf-8")))
    except (RecursionError, ValueError) as error:
        raise ValueError(one_line(f"{file}: {error}; remove it, or fit it again")) from None
    return valid_calibration(calibration, variables, file)


def valid_calibration(
    calibration: Calibration, variables: Mapping[str, Any], source: object
) -> Calibration:
    """Return a calibration, or the default one, with a warning, if it is for other weights.

    Args:
        calibration: The calibration that was stored with the weights.
        variables: Variables of the network. Without a head there are no probabilities.
        source: Where it was stored, for the warning.
    """
    if "head" not in variables["params"]:
        return Calibration()
    if calibration.weights not in ("", weights_digest(variables)):
        warnings.warn(
            f"{source} was fitted with other weights and is not used; fit it again with "
            "`resnet-jax evaluate`",
            stacklevel=4,
        )
        return Calibration()
    return calibration


def write_calibration(file: Path, calibration: Calibration) -> None:
    """Store a calibration. A crash leaves either the old file or the new one, never a part."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(calibration.to_json(), indent=2) + "\n", "utf-8")
    os.replace(temporary, file)
