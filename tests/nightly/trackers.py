"""Runs that are recorded by the real trackers, as far as they are installed, without a network.

Run it with ``pytest -q -n 0 tests/nightly/trackers.py`` after ``pip install wandb mlflow trackio``.
"""

import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resnet_jax.report import read_metrics
from resnet_jax.training import train
from resnet_jax.training.process.preemption import PreemptedError
from resnet_jax.training.trackers import Tracker
from tests.training.test_hooks import CONFIG
from tests.training.trackers import PreemptedAfter

pytestmark = pytest.mark.usefixtures("tiny_networks")


def run_in_two_sessions(name: str, workdir: Path) -> list[dict[str, Any]]:
    """Interrupt a run after step 4, continue it to its end, and return its records."""
    with (
        pytest.raises(PreemptedError),
        Tracker(name) as tracker,
    ):
        train(CONFIG, workdir, hooks=[tracker, PreemptedAfter(3)], quiet=True)
    with Tracker(name) as tracker:
        assert train(CONFIG, workdir, hooks=[tracker], quiet=True) is not None
    return read_metrics(workdir / "metrics.jsonl")


def expected(records: list[dict[str, Any]], kind: str, name: str) -> list[tuple[int, float]]:
    return [
        (record["step"], pytest.approx(record[name]))
        for record in records
        if record["kind"] == kind
    ]


@pytest.fixture
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if "tracker" in record.getMessage()]


@pytest.mark.usefixtures("no_warnings")
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    records = run_in_two_sessions("mlflow", tmp_path / "run")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("resnet_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["optimizer.learning_rate"] == str(CONFIG.optimizer.learning_rate)
    assert run.data.params["schedule.kind"] == "cosine"
    for kind, name in (("train", "loss"), ("train", "learning_rate"), ("test", "top5")):
        history = client.get_metric_history(run.info.run_id, f"{kind}/{name}")
        assert [(point.step, point.value) for point in history] == expected(records, kind, name)
    assert run.data.metrics["result/top1"] == records[-1]["top1"]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


@pytest.mark.usefixtures("no_warnings")
def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It reads the variable when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    records = run_in_two_sessions("trackio", tmp_path / "run")
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("resnet_jax")
    assert name.startswith("run-")
    logs = SQLiteStorage.get_logs("resnet_jax", name)
    for kind, metric in (("train", "loss"), ("train", "learning_rate"), ("test", "top5")):
        key = f"{kind}/{metric}"
        assert [(log["step"], log[key]) for log in logs if key in log] == expected(
            records, kind, metric
        )
    (result,) = [log["result/top1"] for log in logs if "result/top1" in log]
    assert result == records[-1]["top1"]
    config = SQLiteStorage.get_run_config("resnet_jax", name)
    assert config["optimizer.learning_rate"] == CONFIG.optimizer.learning_rate


def contents(file: Path) -> Iterator[bytes]:
    """Yield the records of a file of Weights & Biases, which has LevelDB's log format."""
    blocks, parts = file.read_bytes(), b""
    position = 7  # The file begins with ":W&B", a number and a version.
    while position + 7 <= len(blocks):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", blocks, position + 4)
        position += 7
        parts += blocks[position : position + length]
        position += length
        # Whole records are of kind 1. Those of several parts end with kind 4.
        if kind in (1, 4):
            yield parts
            parts = b""


@pytest.mark.usefixtures("no_warnings")
def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    records = run_in_two_sessions("wandb", tmp_path / "run")
    from wandb.proto import wandb_internal_pb2

    found: list[tuple[int, dict[str, float]]] = []
    identities = set()
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2, "one for each session"
    for data in itertools.chain.from_iterable(map(contents, files)):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            identities.add((record.run.run_id, record.run.project))
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            found.append((record.history.step.num, values))
    ((identity, project),) = identities
    assert project == "resnet_jax"
    assert files[0].stem == files[1].stem == f"run-{identity}"
    for kind, name in (("train", "loss"), ("train", "learning_rate"), ("test", "top5")):
        key = f"{kind}/{name}"
        assert [(step, values[key]) for step, values in found if key in values] == expected(
            records, kind, name
        )
