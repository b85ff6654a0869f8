"""What `resnet-jax predict` shows: a table, progress, and the images that cannot be read."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from resnet_jax.data.dataset import printable
from resnet_jax.data.images.remote import is_remote
from resnet_jax.inference import expand
from resnet_jax.inference.inputs import LIST, InputError
from resnet_jax.inference.predictions import Predicted
from resnet_jax.inference.tables import table_rows

# Number of images whose rows are printed at once.
_BLOCK = 32
# Largest number of unreadable images that are listed.
_LISTED = 50
# Width of the table where no terminal limits it, in characters.
_WIDTH = 200
# Smallest width of a column of paths, in characters.
_NARROWEST = 12


class Screen:
    """The output of the command on a terminal, in a pipe or in a file.

    The table goes to standard output, and everything else to the error stream.  Progress is shown
    on a terminal, unless the table is printed there.

    Args:
        table: Whether to print a table of the predictions.
    """

    def __init__(self, *, table: bool) -> None:
        self._table = table
        self._out, self._errors = Console(), Console(stderr=True)
        if not self._out.is_terminal:
            self._out = Console(width=_WIDTH)
        self._block: list[Predicted] = []
        self._widths: list[int] = []
        self._images = self._failed = 0
        self._reasons: list[str] = []
        self._seconds = 0.0
        shown = self._errors.is_terminal and not (table and self._out.is_terminal)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=self._errors,
            disable=not shown,
            transient=True,
        )
        self._task = self._progress.add_task("images", total=None, visible=False)

    @contextlib.contextmanager
    def counting(self, names: Sequence[str], images: Iterable[str]) -> Iterator[Iterator[str]]:
        """Show progress in reading a collection of images, and yield its images."""
        with self._showing("collection", names):
            yield (self._advanced(image) for image in images)

    @contextlib.contextmanager
    def predicting(self, names: Sequence[str]) -> Iterator[None]:
        """Show progress in predicting images."""
        started = time.perf_counter()
        with self._showing("images", names):
            yield
        self._seconds = time.perf_counter() - started

    def show(self, predicted: Predicted) -> None:
        """Show the predictions for an image, or remember that it cannot be read."""
        self._progress.advance(self._task)
        self._images += 1
        if predicted.error:
            self.unreadable(predicted.image, predicted.error)
        elif self._table:
            self._block.append(predicted)
            if len(self._block) == _BLOCK:
                self._print_block()

    def unreadable(self, image: str, error: str) -> None:
        """Remember an image that cannot be read."""
        self._failed += 1
        if len(self._reasons) < _LISTED:
            self._reasons.append(f"{printable(image)}: {error}")

    def report(self) -> bool:
        """Print the speed and the images that could not be read; return whether there are any."""
        self._print_block()
        plural = "" if self._images == 1 else "s"
        rate = self._images / max(self._seconds, 1e-9)
        self._print(
            f"{self._images:,} image{plural} in {self._seconds:.1f} s ({rate:,.1f} images/s)"
        )
        if self._failed:
            plural = "" if self._failed == 1 else "s"
            self._print(f"{self._failed:,} image{plural} could not be read:")
        for reason in self._reasons:
            self._print(f"  {reason}")
        if self._failed > len(self._reasons):
            self._print(f"  and {self._failed - len(self._reasons):,} more")
        return bool(self._failed)

    @contextlib.contextmanager
    def _showing(self, description: str, names: Sequence[str]) -> Iterator[None]:
        self._progress.reset(self._task, description=description, total=None, visible=True)
        with self._progress:
            if not self._progress.disable and not any(
                name == LIST or is_remote(name) for name in names
            ):
                threading.Thread(target=self._count, args=(names,), daemon=True).start()
            yield

    def _count(self, names: Sequence[str]) -> None:
        """Find out how many images there are, while the first ones are predicted."""
        with contextlib.suppress(InputError, OSError):
            self._progress.update(self._task, total=sum(1 for _ in expand(names, in_order=False)))

    def _advanced(self, image: str) -> str:
        self._progress.advance(self._task)
        return image

    def _print(self, line: str) -> None:
        self._errors.print(line, soft_wrap=True, markup=False, highlight=False)

    def _print_block(self) -> None:
        """Print the rows of some images. All blocks have the columns of the first one."""
        ranks = [rows for predicted in self._block if (rows := table_rows(predicted, "long"))]
        self._block = []
        if not ranks:
            return
        names = [name for name in ranks[0][0] if name not in ("rank", "class_index")]
        cells = [
            ["" if rank and name in ("image", "decision") else _text(row[name]) for name in names]
            for rows in ranks
            for rank, row in enumerate(rows)
        ]
        is_first = not self._widths
        if is_first:
            self._widths = self._fitting(names, cells)
        table = Table(box=None, show_header=is_first)
        for name, width in zip(names, self._widths, strict=True):
            right = name in ("probability", "similarity")
            table.add_column(
                name,
                width=width,
                overflow="fold",
                justify="right" if right else "left",
            )
        for row in cells:
            table.add_row(*map(escape, row))
        self._out.print(table)

    def _fitting(self, names: Sequence[str], cells: Iterable[Sequence[str]]) -> list[int]:
        """Return the widths of columns. Paths are folded if the screen is too narrow."""
        widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
        paths = [i for i, name in enumerate(names) if name in ("image", "neighbor")]
        excess = sum(widths) + 2 * len(widths) - self._out.width
        for _ in range(excess):
            longest = max(paths, key=widths.__getitem__)
            widths[longest] = max(_NARROWEST, widths[longest] - 1)
        return widths


class _Rate(ProgressColumn):
    """Number of images per second."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        # Images come in batches, so that the speed of the last second would mean nothing.
        return Text(f"{task.completed / task.elapsed:,.1f} images/s" if task.elapsed else "")


def _text(value: str | float | None) -> str:
    if value is None or value != value:  # NaN
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
