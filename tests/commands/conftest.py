"""A network that several commands use."""

import json
from pathlib import Path

import numpy as np
import pytest

from resnet_jax import create_model, save_weights
from tests.variables import random_variables

CLASSES = ("cat", "dog", "fox")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny network, in the layout of the hub."""
    directory = tmp_path_factory.mktemp("repository")
    model = create_model("resnet18", num_classes=3, width=8, stage_sizes=(1, 1, 1, 1))
    variables = random_variables(model, np.zeros((1, 32, 32, 3), np.float32))
    save_weights(model, variables, directory / "model.safetensors")
    config = {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 8,
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 16, 32, 64],
        "id2label": dict(enumerate(CLASSES)),
    }
    processor = {"size": {"shortest_edge": 32}, "crop_size": 32, "do_center_crop": True}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory
