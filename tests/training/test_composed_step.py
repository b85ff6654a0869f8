"""A run with all parts of the step at once: it trains, is evaluated twice, and resumes."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from resnet_jax.config import (
    AveragingConfig,
    CheckpointConfig,
    ConfigError,
    FinetuneConfig,
    ModelConfig,
    SamConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.inference.precise_bn import precise_batch_stats
from resnet_jax.training.description import describe
from resnet_jax.training.evaluate import make_eval_step
from resnet_jax.training.loop import TrainResult, train
from resnet_jax.training.metrics import mean_metrics
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from tests.comparison import tree_deviation
from tests.training.tiny_train import NETWORKS

pytestmark = pytest.mark.usefixtures("tiny_networks")

CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet", dtype="float16"),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=16, test_examples=8),
    averaging=AveragingConfig(
        decay=0.5, every_steps=2, statistics="recomputed", recompute_batches=2
    ),
    sam=SamConfig(rho=0.05, interval=2),
    checkpoint=CheckpointConfig(every_steps=1, keep_latest=100),
    batch_size=8,
    accumulate_steps=2,
    epochs=3.0,
    shard_optimizer=True,
    log_every_steps=1,
)


def trained(run: Run, path: Path) -> TrainResult:
    with Workdir(path, run.config) as workdir:
        return train(run, workdir, Console(quiet=True), goodput=Goodput())


def digests(path: Path) -> dict[str, Any]:
    """Return type and digest of every array of the last checkpoint."""
    text = (path / "checkpoints" / "6" / "_CHECKPOINT_METADATA").read_text()
    return json.loads(text)["custom_metadata"]["arrays"]


def rows(path: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [row for row in lines if row["kind"] == kind]


@pytest.fixture(scope="module")
def run() -> Run:
    from resnet_jax.models.variants import _VARIANTS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_VARIANTS, "tiny_resnet", NETWORKS["tiny_resnet"])
        return Run.create(CONFIG, jax.devices()[:2])


@pytest.fixture(scope="module")
def finished(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    path = tmp_path_factory.mktemp("composed") / "run"
    return trained(run, path), path


def test_averages_and_raw_weights_are_evaluated(
    run: Run, finished: tuple[TrainResult, Path]
) -> None:
    result, path = finished
    with Checkpoints(path / "checkpoints", CONFIG.checkpoint) as checkpoints:
        state, _ = checkpoints.restore(run.abstract_state)
    evaluations = rows(path, "test")
    assert [row["step"] for row in evaluations] == [2, 4, 6]
    # The step is evaluated here without the run.
    drawn = next(run.dataset.evaluation.eval_batches(8))
    batch = run.dataset.evaluation.fetch(run.dataset.evaluation.resident, drawn)
    eval_step = jax.jit(make_eval_step(run.model, run.dataset.prepare))
    for prefix, variables in (("", state.ema), ("raw_", state.variables)):
        metrics = mean_metrics([eval_step(jax.device_get(variables), batch).metrics])
        for name, value in metrics.items():
            assert evaluations[-1][prefix + name] == pytest.approx(value, rel=1e-3)
            assert result.metrics[prefix + name] == evaluations[-1][prefix + name]
    assert evaluations[-1]["loss"] != evaluations[-1]["raw_loss"]
    jax.tree.map(np.testing.assert_array_equal, result.variables, state.ema)


def test_statistics_are_recomputed_from_the_first_training_batches(
    run: Run, finished: tuple[TrainResult, Path]
) -> None:
    result, path = finished
    train_split, images = run.dataset.train, []
    drawn = train_split.train_batches(8, seed=CONFIG.seed, start_step=0)
    for _ in range(2):
        batch = train_split.fetch(train_split.resident, next(drawn))
        whole, _ = run.dataset.augment(jax.random.key(0), batch.image, batch.label)
        # Each microbatch is normalized with its own statistics.
        images += [whole[::2], whole[1::2]]
    with Checkpoints(path / "checkpoints", CONFIG.checkpoint) as checkpoints:
        # It is not evaluated after step 1.
        between = checkpoints.restore_step(1, run.abstract_state)
    for averages in (result.variables, between.ema):
        variables = jax.device_get(averages)
        expected = precise_batch_stats(run.model, variables, images)
        # Synthetic images are not augmented. Float16 rounds differently in another program.
        assert tree_deviation(variables["batch_stats"], expected["batch_stats"]) < 2e-3


def test_the_run_resumes_bit_for_bit(
    run: Run, finished: tuple[TrainResult, Path], tmp_path: Path
) -> None:
    _, path = finished
    shutil.copytree(path, tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("[456]"):
        shutil.rmtree(checkpoint)
    (tmp_path / "run" / "result.json").unlink(missing_ok=True)
    trained(run, tmp_path / "run")
    assert digests(tmp_path / "run") == digests(path)
    names = {name.split("/")[0] for name in digests(path)}
    assert names >= {"guard", "loss_scale", "ema", "params", "opt_state", "step"}


def test_skipped_steps_and_the_scale_are_recorded(finished: tuple[TrainResult, Path]) -> None:
    _, path = finished
    train_rows = rows(path, "train")
    assert [row["step"] for row in train_rows] == [1, 2, 3, 4, 5, 6]
    for before, after in itertools.pairwise(train_rows):
        skipped = after["skipped_steps"] - before["skipped_steps"]
        assert after["loss_scale"] == before["loss_scale"] * 0.5**skipped


def test_the_header_names_the_parts(run: Run, tmp_path: Path) -> None:
    with Workdir(tmp_path / "run", run.config) as workdir:
        facts = describe(run, workdir)
    assert facts["batch"] == "8 images, 4 a device, in 2 microbatches"
    assert facts["BatchNorm"] == "statistics of each microbatch"
    assert facts["sharpness"] == "rho 0.05, interval 2"
    assert facts["averages"] == (
        "of parameters, with statistics of 2 batches, decay 0.5, every 2 steps; they are evaluated"
    )
    assert facts["guard"].endswith("fewer than 20 in a row, dynamic loss scaling")


def test_microbatches_must_be_equal_on_all_devices() -> None:
    with pytest.raises(ConfigError, match="8 cannot be divided into 3 equal microbatches"):
        dataclasses.replace(CONFIG, accumulate_steps=3)
    with pytest.raises(
        ConfigError, match="8 cannot be shared evenly by 2 devices in 8 microbatches; use 16"
    ):
        dataclasses.replace(CONFIG, accumulate_steps=8).check_devices(2)
    model = dataclasses.replace(CONFIG.model, bn_group_size=8)
    with pytest.raises(ConfigError, match=r"a microbatch of 4 has no whole groups of model\.bn"):
        dataclasses.replace(CONFIG, model=model).statistics_size(1)
    model = dataclasses.replace(CONFIG.model, bn_group_size="device")
    assert dataclasses.replace(CONFIG, model=model).statistics_size(2) == 2


def test_impossible_averages_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"start_epoch \(3\) must be below epochs \(3\)"):
        dataclasses.replace(CONFIG, averaging=AveragingConfig(decay=0.5, start_epoch=3.0))
    with pytest.raises(ConfigError, match="changes the statistics of all layers, but some are"):
        dataclasses.replace(CONFIG, finetune=FinetuneConfig(freeze=("stem",)))
    with pytest.raises(ConfigError, match=r"decay and averaging\.equal_weights exclude each"):
        AveragingConfig(decay=0.5, equal_weights=True)
    with pytest.raises(ConfigError, match=r"averaging\.every_steps needs averages; set aver"):
        AveragingConfig(every_steps=2)
    with pytest.raises(ConfigError, match="every_steps must be a number with warmup"):
        AveragingConfig(decay=0.9, warmup="torchvision", every_steps="epoch")
