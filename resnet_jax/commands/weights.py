"""List published weights with their accuracies and licenses."""

import dataclasses
from typing import Annotated

import tyro

from resnet_jax.commands.arguments import UsageError, parse_options


@dataclasses.dataclass(frozen=True)
class Arguments:
    """List published weights with their accuracies and licenses.

    timm measured the accuracies on the ImageNet-1k validation images, at the test size. The authors
    of IBN-Net measured those of IBN-Net. Each license applies to the weights, not to
    this library. Load weights with load_weights(model, "hf://timm/NAME"), or train from them with
    --model.weights hf://timm/NAME.
    """

    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATTERN")] = "*"
    """Shell pattern that the names match, such as "resnet50.*" or "*_in12k*"."""


def run(argv: list[str], prog: str) -> int:
    """Print the table and return 0."""
    pattern = parse_options(Arguments, argv, prog=prog).pattern
    from rich.console import Console
    from rich.table import Table

    from resnet_jax.weights.catalogue import list_pretrained

    found = list_pretrained(pattern)
    if not found:
        raise UsageError(
            f"no published weights match {pattern!r}; try {f'{pattern}.*'!r}, or {prog} for all"
        )
    table = Table("name", box=None)
    for heading in ("top-1 %", "top-5 %", "test size", "input size", "classes"):
        table.add_column(heading, justify="right")
    table.add_column("license")
    for weights in found:
        table.add_row(
            weights.name,
            *("" if value is None else f"{value:.2f}" for value in (weights.top1, weights.top5)),
            *map(str, (weights.test_size, weights.input_size, weights.num_classes)),
            weights.licence or "",
        )
    # A table in a pipe is not cut to the width of a terminal that is not there.
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
    return 0
