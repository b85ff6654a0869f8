"""Run directories with records, for cards and repositories."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax.config import SyntheticConfig
from resnet_jax.inference import Calibration, Classifier, write_calibration
from resnet_jax.inference.calibration import CALIBRATION_FILE, FittedOn, weights_digest
from resnet_jax.inference.measures import measure
from tests.inference.test_classifier import write_run

DATA = SyntheticConfig(image_size=16, num_classes=3, train_examples=16, test_examples=12)
FITTED_ON = FittedOn("/home/ada/photos", "validation", 12, "2026-11-28T12:00:00+00:00")


def write_complete_run(path: Path, network: str) -> Path:
    """Write a complete run of random weights on images of noise, with a calibration."""
    written = write_run(path, DATA, network=network)
    labels = np.arange(12) % 3
    result: dict[str, Any] = {
        "split": "test",
        "step": 1,
        "loss": 0.5,
        "top1": 0.5,
        "top5": 1.0,
        "seconds": 3.0,
        "goodput": {"step": 1.0},
        "train_images": 16,
        "parameters": written.run.num_params,
        "measures": measure(np.log(written.expected), labels)._asdict(),
        "facts": {
            "devices": "1 x cpu",
            "workdir": "/home/ada/runs/secret",
            "command": "resnet-jax train /home/ada/mine.py",
            "software": "jax 0.10.2, flax 0.12.8",
            "date": "2026-11-28 12:00 UTC",
        },
    }
    (path / "result.json").write_text(json.dumps(result))
    classifier = Classifier.load(path)
    calibration = Calibration(
        temperature=2.5,
        threshold=0.6,
        accuracy=0.95,
        temperature_fitted_on=FITTED_ON,
        threshold_fitted_on=FITTED_ON,
        weights=weights_digest(classifier.variables),
    )
    write_calibration(path / CALIBRATION_FILE, calibration)
    return path


def evaluation(run: Path, **changes: Any) -> dict[str, Any]:
    """Return what `resnet-jax evaluate --output` writes, as far as a card reads it."""
    return {
        "model": str(run),
        "data": "/data/other_photos",
        "split": "test",
        "measures": {
            "images": 400,
            "top1": 0.8125,
            "top5": 1.0,
            "nll": 0.6,
            "brier": 0.3,
            "ece": 0.04,
            "ece_mass": 0.05,
            "intervals": {"top1": [0.775, 0.85], "nll": [0.5, 0.7]},
        },
        "calibration": {"temperature": 2.5},
        **changes,
    }
