"""The command `resnet-jax`: what is done to data apart from training.

resnet-jax data describe SOURCE
resnet-jax data prepare SOURCE DATA_DIR --name NAME
"""

import dataclasses
import sys
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from resnet_jax.data import DataError

_TRAIN = "python train.py imagenet-resnet50 --data.name None "
# Of each kind of finding, so many are printed.
_LINES = 50
# So many classes are counted one by one.
_CLASSES = 20


@dataclasses.dataclass(frozen=True)
class Describe:
    """Print splits, classes, sizes, mean and std, duplicates and damaged files."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A folder of images, a .csv or .jsonl table, or the directory of a prepared TFDS data set; a
    path or a URL."""
    name: str | None = None
    """Of a TFDS data set below SOURCE, such as imagenet2012 or imagenet2012:5.1.0."""
    image_key: str = "image"
    """Name of the feature that holds the image (TFDS)."""
    label_key: str = "label"
    """Name of the feature that holds the label (TFDS)."""
    threads: int = 0
    """That read and decode; 0 for as many as this process may use cores."""

    def run(self, console: Console) -> int:
        """Returns 1 if there are damaged files, impossible labels, or shared images, else 0."""
        from resnet_jax.data.images.cores import usable_cores
        from resnet_jax.data.images.describe import open_all, shared, summarize

        sources = open_all(
            self.source, name=self.name, image_key=self.image_key, label_key=self.label_key
        )
        summaries = {}
        for name, source in sources.items():
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task(f"{name}: reading", total=len(source))
                summaries[name] = summarize(
                    source,
                    threads=self.threads or usable_cores(),
                    progress=lambda task=task: progress.advance(task),
                )
        columns = Table("", *summaries, title=self.source, title_justify="left")
        found = summaries.values()
        rows = {
            "images": [f"{s.num_images:,}" for s in found],
            "classes": [f"{len(s.counts):,}" if s.counts else "no labels" for s in found],
            "images a class": [
                f"{min(s.counts.values()):,} to {max(s.counts.values()):,}" if s.counts else ""
                for s in found
            ],
            "bytes": [f"{s.size:,}" for s in found],
            "height, pixels": [_spread(s.heights) for s in found],
            "width, pixels": [_spread(s.widths) for s in found],
            "mean, of 1": [_levels(s.mean) for s in found],
            "std, of 1": [_levels(s.std) for s in found],
            "damaged": [f"{len(s.unreadable):,}" for s in found],
            "damaged, but readable": [f"{len(s.forgiven):,}" for s in found],
            "duplicates within": [f"{len(s.duplicates):,}" for s in found],
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
            problems += [f"in {name}: {why}" for why in summary.mislabelled]
            notes += [
                f"damaged, but readable: {file}: {why}" for file, why in summary.forgiven.items()
            ]
            notes += [f"twice in {name}: {one} = {two}" for one, two in summary.duplicates]
            for other in names[i + 1 :]:
                problems += [
                    f"in {name} and in {other}: {one} = {two}"
                    for one, two in shared(summary, summaries[other])
                ]
        _print_some(console, problems, "red")
        _print_some(console, notes, "yellow")
        return int(bool(problems))


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Write a folder of images as a TFDS data set of array_record files."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A folder of images, or a .csv or .jsonl table of them."""
    data_dir: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA_DIR")]
    """Directory of all TFDS data sets, such as ~/tensorflow_datasets."""
    name: str
    """Of the data set: small letters, digits and underscores."""
    evaluation_share: float = 0.2
    """Where the source has no evaluation split, this share of each class becomes one."""
    seed: int = 0
    """Decides which images those are."""
    beam: str | None = None
    """Options of Apache Beam, where that is installed, such as "--runner=DirectRunner"
    (in one argument, --beam="..."); its workers then write the files."""

    def run(self, console: Console) -> int:
        """Returns 0."""
        from resnet_jax.data.images.prepare import prepare
        from resnet_jax.data.images.tfds import open_builder

        # Its progress bars are those of TensorFlow Datasets.
        target = prepare(
            self.source,
            self.data_dir,
            name=self.name,
            evaluation_share=self.evaluation_share,
            seed=self.seed,
            beam=self.beam,
        )
        splits = open_builder(target, None).info.splits
        console.print(f"Written: {target} ({', '.join(splits)})", soft_wrap=True)
        console.print("Its images are as they were; check and train:")
        options = f"--data.directory {target}"
        if "validation" not in splits:
            options += " --data.evaluation-split test"
        for command in ("resnet-jax data describe " + str(target), _TRAIN + options):
            console.print(f"  {command}", soft_wrap=True, highlight=False)
        return 0


_COMMANDS = {"describe": Describe, "prepare": Prepare}


def main(argv: list[str] | None = None) -> None:
    """Runs a command and exits with its code; 2 means that it was refused, in one line."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] != ["data"] or argv[1:2] == [] or argv[1] not in _COMMANDS:
        asked = argv in ([], ["--help"], ["data"], ["data", "--help"])
        lines = [f"  resnet-jax data {name:9} {c.__doc__}" for name, c in _COMMANDS.items()]
        print("\n".join(["usage:", *lines]), file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    prog = f"resnet-jax data {argv[1]}"
    command = tyro.cli(_COMMANDS[argv[1]], prog=prog, args=argv[2:])
    try:
        sys.exit(command.run(Console()))
    except (DataError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _print_classes(console: Console, counts: dict[str, dict[str, int]]) -> None:
    """Of many classes, those with the fewest and with the most images."""
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
    """The shorter sides, in doubling intervals."""
    lines = [f"{name}, shorter side in pixels"]
    if len(sides):
        powers = np.floor(np.log2(np.maximum(sides, 1))).astype(int)
        counts = np.bincount(powers)
        for power in range(powers.min(), powers.max() + 1):
            interval = f"{2**power:,} to {2 ** (power + 1) - 1:,}"
            bar = "█" * max(int(bool(counts[power])), round(40 * counts[power] / counts.max()))
            lines.append(f"  {interval:>16} {counts[power]:>9,} {bar}")
    return "\n".join(lines)
