"""Runs are found, compared in a table, and drawn over each other."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from resnet_jax.commands.main import main
from resnet_jax.config import load_experiment
from resnet_jax.report import find_runs, write_comparison
from resnet_jax.report.charts import LineChart, Series
from resnet_jax.report.runs import Column, compare
from resnet_jax.report.terminal import draw_text

CONFIG = load_experiment("digits-resnet20").config


def write_run(
    path: Path, *, seed: int = 0, learning_rate: float = 0.1, top1: float | None = None
) -> None:
    """Write what a run of three epochs writes; it is complete if it has an accuracy."""
    path.mkdir(parents=True)
    optimizer = dataclasses.replace(CONFIG.optimizer, learning_rate=learning_rate)
    config = dataclasses.replace(CONFIG, seed=seed, optimizer=optimizer, epochs=3.0)
    (path / "config.json").write_text(json.dumps(config.to_json()))
    records: list[dict[str, Any]] = []
    for step in range(1, 31):
        shared = {"step": step, "epoch": step / 10, "time": 1.8e9 + step}
        train = {"kind": "train", "loss": 2 / step, "top1": 0.5, "learning_rate": 0.1}
        records.append(shared | train)
        if step % 10 == 0 and top1 is not None:
            test = {"kind": "test", "loss": 1 - top1, "top1": top1 * step / 30, "top5": 1.0}
            records.append(shared | test)
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if top1 is not None:
        result = {"split": "test", "loss": 1 - top1, "top1": top1, "top5": 1.0, "seconds": 12.3}
        (path / "result.json").write_text(json.dumps(result))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs, one of them not complete, and several directories that are no runs."""
    root = tmp_path / "runs"
    write_run(root / "a", top1=0.9)
    write_run(root / "deep" / "b", seed=1, learning_rate=0.2, top1=0.95)
    write_run(root / "c", seed=2)
    with (root / "c" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "kin')
    (root / "half").mkdir()
    (root / "half" / "config.json").write_text('{"schema_ver')
    (root / "foreign").mkdir()
    (root / "foreign" / "config.json").write_text('{"architectures": ["ResNet"]}')
    (root / "notes" / "old").mkdir(parents=True)
    (root / "notes" / "old" / "readme.txt").write_text("hello")
    (root / ".cache").mkdir()
    write_run(root / "damaged", top1=0.5)
    (root / "damaged" / "metrics.jsonl").write_text('{"loss": 1}\n')
    return root


def write_page(path: Path) -> None:
    """Write the page of two complete runs and of one without an evaluation."""
    root = path.parent / "some runs"
    write_run(root / "first", top1=0.9)
    write_run(root / "second", seed=1, learning_rate=0.2, top1=0.95)
    write_run(root / "third", seed=2)
    found, _ = find_runs(root)
    columns = compare(found)
    write_comparison(path, "Runs", found, columns, columns[0], {"notes": "no config.json"})


def command(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["runs", *argv])
    return int(ended.value.code or 0)


def cells(columns: list[Column], name: str) -> list[str]:
    (column,) = (column for column in columns if column.name == name)
    return [cell.text for cell in column.cells]


def test_runs_are_found_and_everything_else_is_named(runs: Path) -> None:
    found, others = find_runs(runs)
    assert [run.name for run in found] == ["a", "c", "deep/b"]
    assert others == {
        "damaged": "metrics.jsonl is damaged or from another program",
        "foreign": "architectures is not a field of TrainConfig, which has "
        + ", ".join(field.name for field in dataclasses.fields(CONFIG)),
        "half": "config.json is damaged or half-written",
        "notes": "no config.json of a run in it",
    }
    assert [len(run.records) for run in found] == [33, 30, 33]


def test_a_single_run_can_be_given(runs: Path) -> None:
    found, others = find_runs(runs / "a")
    assert [run.name for run in found] == ["a"]
    assert others == {}


def test_the_table_has_the_settings_that_differ(runs: Path) -> None:
    columns = compare(find_runs(runs).runs)
    assert [column.name for column in columns] == [
        *("run", "learning_rate", "seed", "top1", "loss", "epochs_done", "seconds", "date"),
        *("split", "state"),
    ]
    assert cells(columns, "learning_rate") == ["0.1", "0.1", "0.2"]
    assert cells(columns, "top1") == ["90.00%", "", "95.00%"]
    assert cells(columns, "epochs_done") == ["3", "3", "3"]
    assert cells(columns, "seconds") == ["12.3", "", "12.3"]
    assert cells(columns, "state") == ["complete", "unfinished", "complete"]
    by_name = {column.name: column for column in columns}
    assert by_name["top1"].order() == [2, 0, 1], "the highest first, and none last"
    assert by_name["loss"].order() == [2, 0, 1], "the lowest first"
    assert by_name["seed"].order() == [0, 2, 1]


def test_runs_are_printed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(runs)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["run", "deep/b", "a", "c"]
    assert lines[1].split()[:5] == ["deep/b", "0.2", "1", "95.00%", "0.0500"]
    assert "Left out half: config.json is damaged or half-written." in lines
    assert command(str(runs), "--sort", "seed") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["a", "deep/b", "c"]


def test_a_narrow_terminal_gets_the_settings_that_fit(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    assert command(str(runs), "--sort", "seed") == 0
    output = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    lines = output.splitlines()
    assert lines[0].split()[:3] == ["run", "seed", "top1"]
    assert lines[2].split()[:4] == ["━", "deep/b", "1", "95.00%"]
    assert "Other settings that differ: learning_rate." in lines
    assert "Top-1 accuracy of the evaluated split" in output
    assert all(len(line) <= 100 for line in lines)


def test_a_page_is_written_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = runs.parent / "page.html"
    assert command(str(runs), "--output", str(output)) == 0
    assert f"Page: {output}" in capsys.readouterr().out
    page = output.read_text()
    assert page.count("<tr data-name=") == 3
    assert page.count('class="card chart"') == 4
    assert "config.json is damaged or half-written" in page
    assert command(str(runs), "--output", str(output)) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert output.read_text() == page
    assert command(str(runs), "--output", str(output), "--overwrite") == 0
    assert sorted(path.name for path in runs.parent.iterdir()) == ["page.html", "runs"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("nowhere",), "nowhere cannot be read: No such file or directory; give a directory"),
        (("{runs}/notes",), "there is no run below"),
        (("{runs}/half",), "half: config.json is damaged or half-written"),
        (("{runs}", "--sort", "top2"), "there is no column 'top2': did you mean top1"),
        (("{runs}", "--sort", "xyzzy"), "choose from run, learning_rate, seed, top1"),
        (("{runs}", "--output", "nowhere/page.html"), "there is no directory"),
    ],
)
def test_mistakes_get_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    assert command(*(word.format(runs=runs) for word in argv)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_line_rises_in_the_terminal() -> None:
    chart = LineChart("Title", "step", [Series("a", range(101), range(101))])
    text = draw_text(chart, width=40, height=5)
    assert text is not None
    lines = text.plain.splitlines()
    assert lines[0] == "Title"
    assert all(len(line) <= 40 for line in lines[:-1])
    # Its dots go from the lower left to the upper right.
    columns = [[i for i, mark in enumerate(line) if 0x2800 < ord(mark) < 0x2900] for line in lines]
    starts = [found[0] for found in columns if found]
    assert len(starts) == 5
    assert starts == sorted(starts, reverse=True)
    assert draw_text(LineChart("", "", [Series("a", [], [])]), width=40, height=5) is None


def test_every_line_has_a_color_of_its_own() -> None:
    flat = [Series(name, [0, 1], [level, level]) for name, level in (("a", 0.0), ("b", 1.0))]
    text = draw_text(LineChart("", "x", flat), width=40, height=5)
    assert text is not None
    colors = {str(span.style).rpartition(" ")[2] for span in text.spans}
    assert {"dodger_blue1", "dark_orange"} <= colors
