"""A run directory of version 1 of the configuration continues with today's code.

``version_1_run`` was written by the command ``tiny_train.py`` of that version and killed after step
10 of 20.  ``continued.json`` is what that version made of it: losses, test metrics, and the digest
of every array after step 20.
"""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resnet_jax.config import (
    AveragingConfig,
    CheckpointConfig,
    DigitsConfig,
    FinetuneConfig,
    ModelConfig,
    SGDConfig,
    SoftmaxConfig,
    StepsConfig,
    TrainConfig,
)
from resnet_jax.inference.spec import ModelSpec
from resnet_jax.training.rundir.workdir import Workdir, WorkdirError
from resnet_jax.weights.formats.digests import json_digest
from tests.training.ranks import ROOT

OLD = Path(__file__).parent / "version_1_run"
# The options of the old command line, by their current names.
CONFIG = TrainConfig(
    model=ModelConfig("cifar_resnet8", zero_init_residual=False),
    data=DigitsConfig(image_size=8),
    optimizer=SGDConfig(learning_rate=0.05, weight_decay=5e-4),
    schedule=StepsConfig(warmup_epochs=0.2, decay_epochs=(0.5,), decay_factor=0.5),
    # Version 1 froze parameters only, not running statistics.
    finetune=FinetuneConfig(freeze=("stem",), freeze_statistics=False, layer_decay=0.9),
    checkpoint=CheckpointConfig(every_steps=10),
    batch_size=64,
    epochs=0.89,
    loss=SoftmaxConfig(label_smoothing=0.1),
    averaging=AveragingConfig(decay=0.9),
    log_every_steps=1,
    evaluate_every_epochs=5,
)
PROGRAM = """
import json, sys
from resnet_jax.config import TrainConfig
from resnet_jax.models.variants import _VARIANTS
from resnet_jax.training import train
from tests.training.tiny_train import NETWORKS
_VARIANTS.update(NETWORKS)
train(TrainConfig.from_json(json.loads(sys.argv[1])), sys.argv[2])
"""


def arrays(workdir: Path, step: int) -> dict[str, dict[str, str]]:
    """Type and digest of each array in a checkpoint, verified by the digest of the list."""
    file = workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA"
    content = json.loads(file.read_text())["custom_metadata"]
    digest = content.pop("sha256")
    assert digest == json_digest(content)
    return content["arrays"]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "run", ignore=shutil.ignore_patterns("continued.json"))
    return tmp_path / "run"


def test_it_continues_as_it_would_have_then(workdir: Path) -> None:
    before = (workdir / "config.json").read_bytes()
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(CONFIG.to_json()), str(workdir)],
        # One device, as when the run was written.
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    # Restoring checks the digest of every array, and passes over a checkpoint that differs.
    assert "Continuing from the checkpoint of step 10." in process.stdout
    assert (workdir / "config.json").read_bytes() == before

    expected = json.loads((OLD / "continued.json").read_text())
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    losses = {record["step"]: record["loss"] for record in records if record["kind"] == "train"}
    assert list(losses) == list(range(1, 21)), "no step twice, though 11 to 18 were done before"
    result = json.loads((workdir / "result.json").read_text())
    old_losses = {int(step): loss for step, loss in expected["losses"].items()}
    if losses[11] == old_losses[11]:
        # The same kind of processor: everything is equal to the last bit.
        assert {step: losses[step] for step in old_losses} == old_losses
        assert arrays(workdir, 20) == expected["arrays"]
        assert {name: result[name] for name in expected["test"]} == expected["test"]
    else:
        for step, loss in old_losses.items():
            assert math.isclose(losses[step], loss, rel_tol=1e-5), step
        assert math.isclose(result["loss"], expected["test"]["loss"], rel_tol=1e-5)
        assert abs(result["top1"] - expected["test"]["top1"]) <= 1 / 360
        types = {name: array["type"] for name, array in arrays(workdir, 20).items()}
        assert types == {name: array["type"] for name, array in expected["arrays"].items()}

    # The directory gets the files that a new run begins with.
    spec = ModelSpec.from_json(json.loads((workdir / "model.json").read_text()))
    assert (spec.name, spec.class_names) == ("cifar_resnet8", tuple("0123456789"))


def test_only_a_field_whose_value_differs_refuses_it(workdir: Path) -> None:
    Workdir(workdir, CONFIG).close()
    for section, values, difference in (
        ("finetune", {"freeze_statistics": True}, "freeze_statistics: False there, True here"),
        ("schedule", {"decay_epochs": (0.6,)}, "decay_epochs: [0.5] there, [0.6] here"),
        ("optimizer", {"momentum": 0.8}, "momentum: 0.9 there, 0.8 here"),
    ):
        part = dataclasses.replace(getattr(CONFIG, section), **values)
        other = dataclasses.replace(CONFIG, **{section: part})
        with pytest.raises(WorkdirError) as error:
            Workdir(workdir, other)
        assert f"({section}.{difference})" in str(error.value)
