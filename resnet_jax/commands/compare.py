"""Compare two networks on the same labeled images."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnet_jax.commands.arguments import UsageError, parse_options
from resnet_jax.commands.evaluation_data import (
    DataArguments,
    evaluation_errors,
    open_and_load,
    progress_bar,
)
from resnet_jax.commands.interrupts import Interrupted, Interrupts
from resnet_jax.commands.results import check_new_files, write_text

if TYPE_CHECKING:
    from resnet_jax.inference.comparison import Comparison


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(DataArguments):
    """Compare two networks on the same labeled images.

    Prints the measures of both, the differences with confidence intervals, and McNemar's exact
    test of whether one of them is right more often. The classes of both are matched by name.

    The exit code is 1 if images were skipped because they cannot be read, and 2 after a mistake.
    """

    run_a: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN_A")]
    """A run directory, one checkpoint of it, the name of published weights such as
    resnet50.a1_in1k, or a repository such as hf://microsoft/resnet-50."""
    run_b: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN_B")]
    """The other network. Without --data, both are evaluated on the data of RUN_A."""
    output: Path | None = None
    """File for the images on which they differ: a table if its name ends with .csv; all results and
    the images if it ends with .json."""


def run(argv: list[str], prog: str) -> int:
    """Print the comparison.

    Return 0, 1 if images were skipped, 130 after Ctrl-C, or 143 after SIGTERM.
    """
    arguments = parse_options(Arguments, argv, prog=prog)
    output = arguments.output
    if output is not None and output.suffix not in (".csv", ".json"):
        raise UsageError(f"{output} must end with .csv or .json")
    check_new_files(output, overwrite=arguments.overwrite)
    try:
        with Interrupts():
            return _compare(arguments)
    except Interrupted as stop:
        stop.add_note("no results were written")
        return stop.report()


def _compare(arguments: Arguments) -> int:
    import json

    from resnet_jax.inference.comparison import compare
    from resnet_jax.inference.evaluation import evaluate

    data, classifiers = open_and_load(arguments, [arguments.run_a, arguments.run_b])
    with evaluation_errors(), progress_bar(f"{data.name} {data.split}", 2 * len(data)) as advance:
        a, b = (
            evaluate(
                classifier,
                data,
                classes=arguments.classes,
                on_unreadable=arguments.on_unreadable,
                tta=arguments.tta,
                progress=advance,
            )
            for classifier in classifiers
        )
    found = compare(a, b)
    print(f"A: {arguments.run_a}\nB: {arguments.run_b}")
    print(f"{data.name} {data.split}, {found.a.images:,} images that both can read")
    _print(found)
    if (output := arguments.output) is not None:
        content = {"model_a": arguments.run_a, "model_b": arguments.run_b, "data": data.name}
        content |= {"split": data.split, "tta": arguments.tta, **found.to_json()}
        text = json.dumps(content, indent=2) + "\n" if output.suffix == ".json" else found.to_csv()
        with evaluation_errors():
            write_text(output, text)
        print(f"{len(found.disagreements):,} images on which they differ: {output}")
    unreadable = a.unreadable | b.unreadable
    for name, reason in unreadable.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    return int(bool(unreadable))


def _print(found: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", box=None)
    for heading in ("A", "B", "B - A", "95 % interval"):
        table.add_column(heading, justify="right")
    for title, name, scale, digits in (
        ("top-1 accuracy %", "top1", 100, 2),
        ("top-5 accuracy %", "top5", 100, 2),
        ("negative log-likelihood, nats", "nll", 1, 4),
        ("Brier score, 0 to 2", "brier", 1, 4),
    ):
        difference = found.differences[name]
        values = (getattr(found.a, name), getattr(found.b, name))
        table.add_row(
            title,
            *(f"{scale * value:.{digits}f}" for value in values),
            f"{scale * difference.value:+.{digits}f}",
            " to ".join(f"{scale * end:+.{digits}f}" for end in difference.interval),
        )
    Console().print(table)
    print(
        f"both right {found.both_right:,}, only A {found.only_a_right:,}, only B "
        f"{found.only_b_right:,}, neither {found.both_wrong:,}"
    )
    print(f"McNemar's exact test: p = {found.p_value:.4g}", end="")
    if found.p_value < 0.05:
        better = "A" if found.only_a_right > found.only_b_right else "B"
        print(f"; {better} is right more often, which chance alone would rarely explain")
    else:
        print("; the difference in accuracy may be chance")
