"""A whole run in one call from Python, and a report without the unreadable images."""

import dataclasses
import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax.config import (
    CosineConfig,
    ImageConfig,
    ModelConfig,
    SyntheticConfig,
    TfdsConfig,
    TrainConfig,
)
from resnet_jax.data import DataError
from resnet_jax.data.images.prepare import prepare
from resnet_jax.data.images.tfds import TfdsSplit
from resnet_jax.export.run_records import read_records
from resnet_jax.inference.spec import ModelSpec
from resnet_jax.training import TrainResult, train
from resnet_jax.training.setup import Run
from tests.data.images.test_tfds import record

pytestmark = pytest.mark.usefixtures("tiny_networks")

# Three steps of eight images, one on each device.
CONFIG = TrainConfig(
    model=ModelConfig("tiny_resnet"),
    data=SyntheticConfig(image_size=8, num_classes=10, train_examples=24, test_examples=12),
    schedule=CosineConfig(warmup_epochs=0.4),
    batch_size=8,
    epochs=1,
    log_every_steps=1,
)


def trained(config: TrainConfig, *arguments: Any, **options: Any) -> TrainResult:
    result = train(config, *arguments, **options)
    assert result is not None
    return result


def test_a_notebook_trains_with_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = trained(CONFIG, quiet=True)
    assert capsys.readouterr() == ("", "")
    # The temporary directory is not deleted.
    (workdir,) = tmp_path.glob("resnet_jax-*")
    stored = json.loads((workdir / "result.json").read_text())
    assert stored["loss"] == result.metrics["loss"]
    # What a model card says of it.
    records = read_records(workdir)
    assert records.outcome is not None
    assert records.outcome.measures["top1"] == pytest.approx(result.metrics["top1"])
    assert records.outcome.measures["nll"] == pytest.approx(result.metrics["loss"], rel=1e-5)
    assert records.outcome.images == len(result.evaluation.labels)
    low, high = records.outcome.intervals["top1"]
    assert low <= records.outcome.measures["top1"] <= high
    assert records.parameters == result.run.num_params
    assert records.train_images == len(result.run.dataset.train)
    assert {"devices", "software", "date", "library"} <= records.facts.keys()
    # The variables are those that were evaluated.
    split: Any = result.run.dataset.evaluation
    images = result.run.dataset.prepare(jnp.asarray(split.images))
    logits = result.run.model.apply(jax.device_get(result.variables), images, train=False)
    np.testing.assert_allclose(result.evaluation.logits, logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(result.evaluation.labels, split.labels)
    # A second call with the same directory finds the run complete.
    assert train(CONFIG, workdir, quiet=True) is None


def test_a_run_describes_its_network_when_it_begins(tmp_path: Path) -> None:
    model = ModelConfig("resnet18", act="gelu", norm="group", small_input=True, output_stride=8)
    config = dataclasses.replace(CONFIG, model=model)
    run = Run.create(config)
    spec = ModelSpec.from_json(json.loads(json.dumps(run.spec.to_json())))
    assert run.spec is run.spec, "made once, for model.json and all checkpoints"
    assert spec.num_classes == 10
    assert spec.class_names == tuple("0123456789")
    assert spec.preprocessing == run.dataset.preprocessing
    # The network that it describes computes what the trained one does, operation by operation.
    variables = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), run.abstract_state.variables
    )

    def program(model: Any) -> str:
        apply = functools.partial(model.apply, train=False)
        return str(jax.make_jaxpr(apply)(variables, jnp.zeros((1, 8, 8, 3))))

    assert program(spec.create()) == program(run.model)
    assert "erf" not in program(spec.create())
    assert "tanh" in program(spec.create()), "gelu"

    trained(CONFIG, tmp_path / "run", quiet=True)
    stored = json.loads((tmp_path / "run" / "model.json").read_text())
    assert stored == Run.create(CONFIG).spec.to_json()
    file = tmp_path / "run" / "checkpoints" / "3" / "_CHECKPOINT_METADATA"
    assert json.loads(file.read_text())["custom_metadata"]["metadata"]["model"] == stored


def test_every_row_of_the_metrics_has_a_time_and_an_epoch(tmp_path: Path) -> None:
    trained(CONFIG, tmp_path / "run", quiet=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("train", 1), ("train", 2), ("train", 3), ("test", 3),
    ]  # fmt: skip
    np.testing.assert_allclose([row["epoch"] for row in rows], [1 / 3, 2 / 3, 1, 1])
    assert sorted(row["time"] for row in rows) == [row["time"] for row in rows]


def test_a_shortened_warm_up_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(CONFIG, schedule=CosineConfig(warmup_epochs=5.0))
    trained(config, tmp_path / "run")
    line = "The warm-up takes 0.1 epochs instead of 5, because the run has only 1.\n"
    assert line in capsys.readouterr().out


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images to train on and 8 to validate on, two of which are damaged, as TFRecord files."""
    root, rng = tmp_path_factory.mktemp("animals"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i}.jpg")
    source = prepare(root / "photos", root / "tfds", name="animals", evaluation_share=0.25, seed=0)
    target = root / "tfrecord" / "animals" / "1.0.0"
    target.mkdir(parents=True)
    info = json.loads((source / "dataset_info.json").read_text())
    for split in info["splits"]:
        examples = list(TfdsSplit(source, split["name"])._examples)
        if split["name"] == "validation":
            for i in (2, 5):
                examples[i] = b"\xff" * len(examples[i])
        file = target / f"animals-{split['name']}.tfrecord-00000-of-00001"
        file.write_bytes(b"".join(map(record, examples)))
        split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        split["shardLengths"] = [str(len(examples))]
    (target / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    for name in ("features.json", "label.labels.txt"):
        shutil.copy(source / name, target / name)
    return target


def test_a_damaged_evaluation_shard_does_not_cost_the_report(damaged: Path, tmp_path: Path) -> None:
    images = ImageConfig(image_size=8, on_unreadable="skip", threads=1)
    config = dataclasses.replace(CONFIG, data=TfdsConfig(str(damaged), images=images))
    result = trained(config, tmp_path / "run", quiet=True)
    split = result.run.dataset.evaluation
    with pytest.raises(DataError):
        assert len(split.labels), "reading all labels again fails"
    labels, mask = result.evaluation.labels, result.evaluation.mask
    assert np.flatnonzero(~mask).tolist() == [2, 5]
    right = (result.evaluation.logits.argmax(1) == labels)[mask]
    assert result.metrics["top1"] == pytest.approx(right.mean())

    # The report shows what the metrics count: six images, none of those that were skipped.
    report = (tmp_path / "run" / "report.html").read_text()
    behind = report[report.index('<div class="behind">') : report.index('<section id="mistakes"')]
    assert behind.count('<img src="data:image/png;base64,') == 6
    names = set(re.findall(r'<span class="file"[^>]*>validation, example (\d)</span>', behind))
    assert names == {"0", "1", "3", "4", "6", "7"}
    assert f"Errors on the validation images: {(~right).sum()} of 6" in report
    assert "2 unreadable images" in report


def test_where_no_image_can_be_read_there_is_one_line(damaged: Path, tmp_path: Path) -> None:
    images = ImageConfig(image_size=8, on_unreadable="skip", threads=1)
    data = TfdsConfig(str(damaged), images=images, evaluation_split="validation[2:3]")
    config = dataclasses.replace(CONFIG, data=data)
    with pytest.raises(DataError, match="none of the 1 images to evaluate can be read"):
        train(config, tmp_path / "run", quiet=True)
