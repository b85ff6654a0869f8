"""Reading of what runs have written, and the table that compares them."""

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from resnet_jax.config import ConfigError, TrainConfig
from resnet_jax.metrics_file import read_metrics


@dataclasses.dataclass(frozen=True)
class FoundRun:
    """A run in a directory, complete or not.

    Attributes:
        name: Path of the run directory, relative to the directory that was searched.
        settings: The resolved configuration by dotted name, such as ``"optimizer.learning_rate"``.
        records: The metrics in the order of their steps; see `resnet_jax.report.read_metrics`.
        result: The content of ``result.json``, or an empty mapping if the run is not complete.
    """

    name: str
    settings: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The records of the evaluated split."""
        return [record for record in self.records if record["kind"] != "train"]


class FoundRuns(NamedTuple):
    """What is below a directory.

    Attributes:
        runs: The runs, by name.
        others: Directories that hold no run or a damaged one, with the reason for each.
    """

    runs: list[FoundRun]
    others: dict[str, str]


def find_runs(directory: Path) -> FoundRuns:
    """Return the runs below a directory, or in the directory itself.

    Args:
        directory: A directory. Links to directories are not followed, and hidden directories are
            left out.

    Raises:
        OSError: The directory does not exist or cannot be read.
    """
    runs: list[FoundRun] = []
    others: dict[str, str] = {}
    _search(directory, directory, runs, others)
    return FoundRuns(runs, others)


def _search(root: Path, path: Path, runs: list[FoundRun], others: dict[str, str]) -> bool:
    """Add what is below a path; return whether there is a run or a damaged one."""
    name = path.relative_to(root).as_posix() if path != root else root.absolute().name
    if (path / "config.json").exists():
        try:
            runs.append(_read_run(name, path))
        except (ConfigError, OSError, ValueError) as error:
            others[name] = str(error)
        return True
    try:
        children = sorted(child for child in path.iterdir() if _is_searched(child))
    except OSError as error:
        if path == root:
            raise
        others[name] = error.strerror or str(error)
        return True
    inside: dict[str, str] = {}
    if sum(_search(root, child, runs, inside) for child in children):
        others |= inside
        return True
    # One line is enough for a directory and all that is in it.
    others[name] = "no config.json of a run in it"
    return False


def _is_searched(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir() and not path.is_symlink()


def _read_run(name: str, path: Path) -> FoundRun:
    """Return a run.

    Raises:
        ConfigError: Its configuration is not one of this library.
        OSError: A file cannot be read.
        ValueError: A file is damaged.
    """
    config = TrainConfig.from_json(_read_object(path / "config.json"))
    metrics, result = path / "metrics.jsonl", path / "result.json"
    try:
        records = read_metrics(metrics) if metrics.exists() else []
    except (LookupError, TypeError, ValueError):
        raise ValueError("metrics.jsonl is damaged or from another program") from None
    return FoundRun(
        name,
        dict(_flatten(config.to_json())),
        records,
        _read_object(result) if result.exists() else {},
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (RecursionError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is damaged or half-written")
    return value


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


class Cell(NamedTuple):
    """A value in a table of runs.

    Attributes:
        value: What the table is sorted by, or None if the run has no value.
        text: The value for people.
    """

    value: float | str | None
    text: str


class Column(NamedTuple):
    """A column of a table of runs.

    Attributes:
        name: Name of the column.
        cells: One value for each run.
        is_number: Whether the values are numbers.
        best: Whether the highest or the lowest value is the best, or neither.
    """

    name: str
    cells: Sequence[Cell]
    is_number: bool
    best: str = ""

    def order(self) -> list[int]:
        """Return the numbers of the runs: the best first, or in rising order. Blanks come last."""
        present = [i for i, cell in enumerate(self.cells) if cell.value is not None]
        blank = [i for i, cell in enumerate(self.cells) if cell.value is None]

        def key(i: int) -> Any:
            value = self.cells[i].value
            return (isinstance(value, str), value)

        return sorted(present, key=key, reverse=self.best == "high") + blank


def compare(runs: Sequence[FoundRun]) -> list[Column]:
    """Return a table of runs: their settings that differ, their metrics, their time.

    Args:
        runs: At least one run.
    """
    columns = [Column("run", [Cell(run.name, run.name) for run in runs], is_number=False)]
    columns += _settings(runs)
    outcomes = [run.result or (run.evaluations or [{}])[-1] for run in runs]
    splits = [_split(run) for run in runs]
    states = ["complete" if run.result else "unfinished" for run in runs]
    columns += [
        _numbers("top1", [found.get("top1") for found in outcomes], "{:.2%}", "high"),
        _numbers("loss", [found.get("loss") for found in outcomes], "{:.4f}", "low"),
        _numbers("epochs_done", [_last(run).get("epoch") for run in runs], "{:.4g}"),
        _numbers("seconds", [run.result.get("seconds") for run in runs], "{:,.1f}", "low"),
        Column("date", [_date(_last(run).get("time")) for run in runs], is_number=False),
    ]
    for name, values in (("split", splits), ("state", states)):
        if len(set(values)) > 1 or "unfinished" in values:
            columns.append(Column(name, [Cell(value, value) for value in values], is_number=False))
    return columns


def _settings(runs: Sequence[FoundRun]) -> list[Column]:
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    differing = [name for name in names if len({repr(run.settings.get(name)) for run in runs}) > 1]
    count = collections.Counter(name.rpartition(".")[2] for name in differing)
    columns = []
    for name in differing:
        values = [run.settings.get(name) for run in runs]
        last = name.rpartition(".")[2]
        columns.append(
            Column(
                last if count[last] == 1 else name,
                [_setting(value) for value in values],
                is_number=all(_is_number(value) for value in values if value is not None),
            )
        )
    return columns


def _setting(value: Any) -> Cell:
    if value is None:
        return Cell(None, "")
    if _is_number(value):
        return Cell(value, f"{value:g}" if isinstance(value, float) else str(value))
    text = value if isinstance(value, str) else json.dumps(value)
    return Cell(text, text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(name: str, values: Sequence[Any], form: str, best: str = "") -> Column:
    numbers = [value if _is_number(value) else None for value in values]
    cells = [Cell(value, "" if value is None else form.format(value)) for value in numbers]
    return Column(name, cells, is_number=True, best=best)


def _date(time: Any) -> Cell:
    if not _is_number(time):
        return Cell(None, "")
    text = f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}"
    return Cell(text, text)


def _last(run: FoundRun) -> Mapping[str, Any]:
    return run.records[-1] if run.records else {}


def _split(run: FoundRun) -> str:
    return run.result.get("split") or next((found["kind"] for found in run.evaluations), "")
