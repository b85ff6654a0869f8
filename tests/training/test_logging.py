"""Metrics that a run writes to files and to the screen."""

import json
import time
from pathlib import Path

from resnet_jax.report import read_metrics
from resnet_jax.training.rundir.metric_log import MetricWriter


def test_records_come_back_and_events_are_written(tmp_path: Path) -> None:
    jsonl, events = tmp_path / "metrics.jsonl", tmp_path / "tensorboard"
    with MetricWriter(jsonl, events, start_step=0) as writer:
        before = time.time()
        writer.write(1, 0.5, "train", {"loss": 2.5})
        writer.write(1, 0.5, "test", {"loss": 3.5})
    records = read_metrics(jsonl)
    times = [record.pop("time") for record in records]
    assert before <= times[0] <= times[1] <= time.time()
    assert records == [
        {"step": 1, "epoch": 0.5, "kind": "train", "loss": 2.5},
        {"step": 1, "epoch": 0.5, "kind": "test", "loss": 3.5},
    ]
    assert [path.name.startswith("events.out.tfevents") for path in events.iterdir()] == [True]


def test_steps_done_twice_count_once(tmp_path: Path) -> None:
    jsonl = tmp_path / "metrics.jsonl"
    with MetricWriter(jsonl, tmp_path, start_step=0) as writer:
        for step in (1, 2, 3):
            writer.write(step, step / 4, "train", {"loss": 1.0})
    # The file is cut off in the middle of a line, and the run continues from step 1.
    with jsonl.open("a") as file:
        file.write('{"step": 4, "kin')
    with MetricWriter(jsonl, tmp_path, start_step=1) as writer:
        for step in (2, 3, 4):
            writer.write(step, step / 4, "train", {"loss": 2.0})
    # The file has each step once.
    records = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert records == read_metrics(jsonl)
    assert [(record["step"], record["loss"]) for record in records] == [
        (1, 1.0),
        (2, 2.0),
        (3, 2.0),
        (4, 2.0),
    ]
