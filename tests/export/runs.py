"""Run directories with records, for cards and repositories."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.config import CheckpointConfig, ModelConfig, SyntheticConfig, TrainConfig
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference import Calibration, ModelSpec, write_calibration
from resnet_jax.inference.calibration import CALIBRATION_FILE, FittedOn, weights_digest
from resnet_jax.inference.measures import measure
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.state import TrainState
from tests.variables import random_variables

NETWORK = "tiny_resnet"
"""Network of `tests/training/tiny_train.py`. Under this name it counts as one that timm has."""

FITTED_ON = FittedOn("/home/ada/photos", "validation", 12, "2026-11-28T12:00:00+00:00")


def write_run(path: Path, **fields: Any) -> Path:
    """Write a complete run of random weights on images of noise, with a calibration.

    Args:
        path: The run directory.
        **fields: Changes of the network. With any, timm has no such network.
    """
    data = SyntheticConfig(image_size=16, num_classes=3, train_examples=16, test_examples=12)
    config = TrainConfig(ModelConfig(NETWORK), data, batch_size=8, epochs=1)
    spec = ModelSpec(
        name=NETWORK,
        fields={"dtype": "float32", **fields},
        num_classes=3,
        class_names=("cat", "dog", "fox"),
        preprocessing=Preprocessing(16, 0.875, "pil_bilinear", (0.5,), (0.25,), 3),
        library_version="0.1.0",
    )
    variables = random_variables(spec.create(), np.zeros((1, 16, 16, 3), np.float32))
    state = TrainState(
        step=jnp.asarray(1, jnp.int32), opt_state=optax.sgd(0.1).init({}), **variables
    )
    path.mkdir()
    with Checkpoints(path / "checkpoints", CheckpointConfig()) as checkpoints:
        checkpoints.save(state, badness=None, metadata={"model": spec.to_json()})
    logits = np.random.default_rng(0).normal(size=(12, 3))
    result: dict[str, Any] = {
        "split": "test",
        "step": 1,
        "loss": 0.5,
        "top1": 0.5,
        "top5": 1.0,
        "seconds": 3.0,
        "goodput": {"step": 1.0},
        "train_images": 16,
        "parameters": 1234,
        "measures": measure(logits, np.arange(12) % 3)._asdict(),
        "facts": {
            "devices": "1 x cpu",
            "workdir": "/home/ada/runs/secret",
            "command": "resnet-jax train /home/ada/mine.py",
            "software": "jax 0.10.2, flax 0.12.8",
            "date": "2026-11-28 12:00 UTC",
        },
    }
    for name, content in (
        ("config.json", config.to_json()),
        ("model.json", spec.to_json()),
        ("result.json", result),
    ):
        (path / name).write_text(json.dumps(content))
    calibration = Calibration(
        temperature=2.5,
        threshold=0.6,
        accuracy=0.95,
        temperature_fitted_on=FITTED_ON,
        threshold_fitted_on=FITTED_ON,
        weights=weights_digest(variables),
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
