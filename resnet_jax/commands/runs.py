"""Compare training runs: settings that differ, metrics, time and curves."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.results import check_new_files
from resnet_jax.suggestions import did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from resnet_jax.report.runs import Column, FoundRun

# Directories without a run that are named on the terminal. The page names all.
_MAX_OTHERS = 5
# Settings that are named if the terminal has no room for them.
_MAX_NAMED = 8


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare training runs: settings that differ, metrics, time and curves.

    Every directory with a config.json that `resnet-jax train` wrote is a run, whether or not the
    run is complete. Other directories and damaged runs are named below the table.
    """

    directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIRECTORY")] = Path(
        "runs"
    )
    """Directory that contains the runs, at any depth."""
    sort: str = "top1"
    """Column to sort by: run, top1, loss, epochs_done, seconds, date, or one of the settings that
    differ. The best values of a metric come first, and other values rise."""
    output: Path | None = None
    """Also write a page to this HTML file: the table, which can be sorted, and the curves of all
    runs over each other."""
    overwrite: Flag = False
    """Replace the output file if it exists."""


def run(argv: list[str], prog: str) -> int:
    """Print the table and the curves, write the page, and return 0."""
    arguments = parse_options(Arguments, argv, prog=prog)
    output = arguments.output
    check_new_files(output, overwrite=arguments.overwrite)
    from resnet_jax.report.runs import compare, find_runs

    try:
        runs, others = find_runs(arguments.directory)
    except OSError as error:
        raise UsageError(
            f"{arguments.directory} cannot be read: {error.strerror}; give a directory of runs"
        ) from None
    if not runs:
        damaged = "".join(f"; {name}: {reason}" for name, reason in list(others.items())[:1])
        raise UsageError(
            f"there is no run below {arguments.directory}{damaged}; give the directory in which "
            "resnet-jax train has made its run directories"
        )
    columns = compare(runs)
    chosen = next((column for column in columns if column.name == arguments.sort), None)
    if chosen is None:
        names = [column.name for column in columns]
        hint = did_you_mean(nearest(arguments.sort, names), f"choose from {', '.join(names)}")
        raise UsageError(f"there is no column {arguments.sort!r}: {hint}")
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        # A table in a pipe is not cut to the width of a terminal that is not there.
        console = Console(width=sum(map(_width, columns)))
    shown = _fitting(columns, chosen, console.width)
    _print_table(console, runs, shown, chosen.order())
    if left := [column.name for column in columns if column not in shown]:
        named = [
            *left[:_MAX_NAMED],
            *([f"{len(left) - _MAX_NAMED} more"] * (len(left) > _MAX_NAMED)),
        ]
        console.print(f"Other settings that differ: {', '.join(named)}.", highlight=False)
    if console.is_terminal:
        _print_curves(console, runs)
    for name, reason in list(others.items())[:_MAX_OTHERS]:
        console.print(f"Left out {name}: {reason}.", style="yellow", markup=False, highlight=False)
    if len(others) > _MAX_OTHERS:
        console.print(f"Left out {len(others) - _MAX_OTHERS} more directories.", style="yellow")
    if output:
        _write_page(output, arguments, runs, columns, chosen, others)
        console.print(f"Page: {output}", highlight=False, soft_wrap=True)
    return 0


def _width(column: "Column") -> int:
    """Return the width of a column in characters, with its gap and the mark of a run."""
    longest = max(len(column.name), *(len(cell.text) for cell in column.cells))
    return longest + (4 if column.name == "run" else 2)


def _fitting(columns: "Sequence[Column]", chosen: "Column", width: int) -> "list[Column]":
    """Return the columns that a terminal has room for: all metrics, and as many settings as fit."""
    names = [column.name for column in columns]
    settings = columns[1 : names.index("top1")]
    room = width - sum(_width(column) for column in columns if column not in settings)
    kept = []
    for column in sorted(settings, key=lambda column: column is not chosen):
        if _width(column) <= room:
            kept.append(column)
            room -= _width(column)
    return [column for column in columns if column not in settings or column in kept]


def _print_table(
    console: "Console", runs: "Sequence[FoundRun]", columns: "Sequence[Column]", order: list[int]
) -> None:
    from rich.table import Table
    from rich.text import Text

    from resnet_jax.report.terminal import COLORS

    table = Table(box=None)
    for column in columns:
        table.add_column(
            column.name, justify="right" if column.is_number else "left", overflow="fold"
        )
    for i in order:
        # The mark has the color of the curves of the run.
        mark = Text.assemble(("━ ", COLORS[i % len(COLORS)]), runs[i].name)
        name = mark if console.is_terminal else Text(runs[i].name)
        table.add_row(name, *(Text(column.cells[i].text) for column in columns[1:]))
    console.print(table)


def _print_curves(console: "Console", runs: "Sequence[FoundRun]") -> None:
    from resnet_jax.report.comparison import overlaid
    from resnet_jax.report.terminal import draw_text

    for chart in overlaid(runs)[:2]:
        if text := draw_text(chart, width=max(30, min(console.width, 100)), height=10):
            console.print()
            console.print(text)


def _write_page(
    output: Path,
    arguments: Arguments,
    runs: "Sequence[FoundRun]",
    columns: "Sequence[Column]",
    chosen: "Column",
    others: "Mapping[str, str]",
) -> None:
    from resnet_jax.report.comparison import write_comparison

    # A crash leaves the old file or none, but never a part.
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    title = f"Runs in {arguments.directory.absolute().name}"
    try:
        write_comparison(temporary, title, runs, columns, chosen, others)
        os.replace(temporary, output)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
