"""List the networks with their numbers of parameters and multiply-accumulates."""

import csv
import dataclasses
import fnmatch
from importlib import resources
from typing import Annotated

import tyro

from resnet_jax.commands.arguments import UsageError, parse_options
from resnet_jax.suggestions import did_you_mean, nearest


@dataclasses.dataclass(frozen=True)
class Arguments:
    """List the networks with their numbers of parameters and multiply-accumulates.

    Multiply-accumulates (MACs) are those of the evaluation of one image of the input size, which is
    the side of a square RGB image in pixels. Every network accepts other sizes, too.
    """

    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATTERN")] = "*"
    """Shell pattern that the names match, such as "resnet*" or "*50d"."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A network and its costs.

    Attributes:
        name: Name for `resnet_jax.create_model`.
        parameters: Number of trainable numbers, with the default number of classes.
        macs: Number of multiply-accumulates of the evaluation of one image.
        input_size: Side of that image, in pixels.
    """

    name: str
    parameters: int
    macs: int
    input_size: int


def rows() -> list[Row]:
    """Return all networks, in the order of `resnet_jax.list_models`.

    They are stored in `models.csv`, because counting them takes minutes.
    `tests/commands/regenerate_models.py` writes it.
    """
    content = resources.files("resnet_jax.commands").joinpath("models.csv").read_text("utf-8")
    return [
        Row(row["name"], int(row["parameters"]), int(row["macs"]), int(row["input_size"]))
        for row in csv.DictReader(content.splitlines())
    ]


def run(argv: list[str], prog: str) -> int:
    """Print the table and return 0."""
    pattern = parse_options(Arguments, argv, prog=prog).pattern
    from rich.console import Console
    from rich.table import Table

    found = [row for row in rows() if fnmatch.fnmatchcase(row.name, pattern)]
    if not found:
        near = nearest(pattern, [row.name for row in rows()])
        hint = did_you_mean(near, otherwise=f"{prog} lists all")
        raise UsageError(f"no network matches {pattern!r}: {hint}")
    table = Table("name", box=None)
    for heading in ("parameters", "GMACs", "input size"):
        table.add_column(heading, justify="right")
    for row in found:
        table.add_row(row.name, f"{row.parameters:,}", f"{row.macs / 1e9:.2f}", str(row.input_size))
    Console().print(table)
    return 0
