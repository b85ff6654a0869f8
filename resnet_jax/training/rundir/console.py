"""Output on the screen while a run goes on."""

from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table


def print_header(console: Console, title: str, facts: Mapping[str, str]) -> None:
    """Print a title and a table of facts."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    console.print(f"[bold]{title}[/bold]")
    console.print(table)


class ProgressLine:
    """Progress as a live line on a terminal, and as plain lines elsewhere.

    Use it as a context manager.

    Args:
        console: Where to print.
        total_steps: Number of steps of the run.
        start_step: Number of steps that are done already.
    """

    def __init__(self, console: Console, *, total_steps: int, start_step: int) -> None:
        self._console = console
        self._total_steps = total_steps
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            "train", total=total_steps, completed=start_step, status="starting"
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def train(self, step: int, values: Mapping[str, float], *, eta_seconds: float) -> None:
        """Show ``loss``, ``top1`` and ``images_per_second`` of the steps since the last record.

        The number of ``skipped_steps`` of the run is shown if there are any.
        """
        skipped = values.get("skipped_steps", 0)
        parts = [
            f"loss {values['loss']:.4f}  top-1 {values['top1']:.2%}" if "loss" in values else "",
            f"{values['images_per_second']:,.1f} images/s",
            f"skipped steps {skipped:.0f}" if skipped else "",
        ]
        status = "  ".join(filter(None, parts))
        self._progress.update(self._task, completed=step, status=status)
        if not self._console.is_terminal:
            self._console.print(
                f"step {step}/{self._total_steps}  {status}  ETA {eta_seconds:.0f} s"
            )

    def evaluation(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Print ``loss`` and ``top1`` of a split after a step, in a line that stays.

        If the values are those of averages, ``raw_top1`` of the parameters themselves follows.
        """
        raw = f" (raw weights {values['raw_top1']:.2%})" if "raw_top1" in values else ""
        self._console.print(
            f"step {step}/{self._total_steps}  {split}: "
            f"loss {values['loss']:.4f}  top-1 {values['top1']:.2%}{raw}"
        )
