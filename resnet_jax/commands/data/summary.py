"""What `resnet-jax data describe` prints about a data set."""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from resnet_jax.data.dataset import printable
from resnet_jax.data.images.describe import shared, summarize
from resnet_jax.data.images.pixels import nearly_the_same
from resnet_jax.data.images.source import ImageSource

# Largest number of findings of each kind that are printed.
_LINES = 50
# Largest number of classes that are all listed.
_CLASSES = 20


def print_summary(
    console: Console,
    sources: dict[str, ImageSource],
    *,
    title: str,
    threads: int,
    max_pixels: int,
) -> bool:
    """Read every image once, and print what the splits contain.

    Args:
        console: Where to print.
        sources: The splits by name.
        title: Title of the table.
        threads: Number of threads that read and decode.
        max_pixels: Largest number of pixels of an image.

    Returns:
        Whether there are damaged or too large files, impossible or contradictory labels, or images
        that splits share.
    """
    summaries = {}
    for name, source in sources.items():
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"{name}: reading", total=len(source))
            summaries[name] = summarize(
                source,
                threads=threads,
                max_pixels=max_pixels,
                progress=lambda task=task: progress.advance(task),
            )
    columns = Table("", *summaries, title=printable(title), title_justify="left")
    found = summaries.values()
    rows = {
        "images": [f"{s.num_images:,}" for s in found],
        "classes": [f"{len(s.counts):,}" if s.counts else "no labels" for s in found],
        "images per class": [
            f"{min(s.counts.values()):,} to {max(s.counts.values()):,}" if s.counts else ""
            for s in found
        ],
        "bytes": [f"{s.size:,}" for s in found],
        "height, pixels": [_spread(s.heights) for s in found],
        "width, pixels": [_spread(s.widths) for s in found],
        "mean, 0 to 1": [_levels(s.mean) for s in found],
        "std, 0 to 1": [_levels(s.std) for s in found],
        "damaged": [f"{len(s.unreadable):,}" for s in found],
        "too large": [f"{len(s.too_large):,}" for s in found],
        "damaged, but readable": [f"{len(s.forgiven):,}" for s in found],
        "duplicates within": [f"{len(s.duplicates) + len(s.contradictions):,}" for s in found],
    }
    for name, cells in rows.items():
        columns.add_row(name, *cells)
    console.print(columns)
    if counts := {name: s.counts for name, s in summaries.items() if s.counts}:
        _print_classes(console, counts)
    for name, summary in summaries.items():
        console.print(_histogram(name, np.minimum(summary.heights, summary.widths)))
    problems, notes = [], []
    names = list(summaries)
    for i, (name, summary) in enumerate(summaries.items()):
        problems += [f"damaged: {file}: {why}" for file, why in summary.unreadable.items()]
        problems += [f"too large: {file}: {why}" for file, why in summary.too_large.items()]
        problems += [f"in {name}: {why}" for why in summary.mislabelled]
        problems += [
            f"twice in {name}: {one} = {two}, with different labels"
            for one, two in summary.contradictions
        ]
        notes += [f"damaged, but readable: {file}: {why}" for file, why in summary.forgiven.items()]
        notes += [f"twice in {name}: {one} = {two}" for one, two in summary.duplicates]
        for other in names[i + 1 :]:
            problems += [
                f"in {name} and in {other}: {one} = {two}"
                for one, two in shared(summary, summaries[other])
            ]
    looks = [image for summary in found for image in summary.thumbnails]
    notes += [
        f"nearly the same with different labels: {one.name} ({one.class_name}) and {two.name} "
        f"({two.class_name})"
        for one, two in nearly_the_same(looks)
    ]
    _print_some(console, problems, "red")
    _print_some(console, notes, "yellow")
    return bool(problems)


def _print_classes(console: Console, counts: dict[str, dict[str, int]]) -> None:
    """Print the size of each class, or of the smallest and largest ones if there are many."""
    classes = list(next(iter(counts.values())))
    if len(classes) > _CLASSES:
        classes.sort(key=lambda name: sum(split[name] for split in counts.values()))
        half = _CLASSES // 2
        console.print(
            f"images of the {half} smallest and the {half} largest of {len(classes):,} classes"
        )
        classes = [*classes[:half], *classes[-half:]]
    table = Table("class", *counts)
    for name in classes:
        table.add_row(escape(name), *(f"{split[name]:,}" for split in counts.values()))
    console.print(table)


def _print_some(console: Console, lines: list[str], style: str) -> None:
    for line in lines[:_LINES]:
        console.print(line, style=style, soft_wrap=True, markup=False, highlight=False)
    if len(lines) > _LINES:
        console.print(f"and {len(lines) - _LINES:,} more such lines", style=style)


def _spread(sizes: np.ndarray) -> str:
    if not len(sizes):
        return "none"
    return f"{sizes.min()} to {sizes.max()}, median {int(np.median(sizes))}"


def _levels(levels: np.ndarray) -> str:
    return " ".join(f"{level / 255:.3f}" for level in levels)


def _histogram(name: str, sides: np.ndarray) -> str:
    """Return a bar chart of the shorter sides, in intervals that double in width."""
    lines = [f"{name}, shorter side in pixels"]
    if len(sides):
        powers = np.floor(np.log2(np.maximum(sides, 1))).astype(int)
        counts = np.bincount(powers)
        for power in range(powers.min(), powers.max() + 1):
            interval = f"{2**power:,} to {2 ** (power + 1) - 1:,}"
            bar = "█" * max(int(bool(counts[power])), round(40 * counts[power] / counts.max()))
            lines.append(f"  {interval:>16} {counts[power]:>9,} {bar}")
    return "\n".join(lines)
