"""Time exports and networks side by side."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnet_jax.commands.arguments import Flag, UsageError, parse_options
from resnet_jax.commands.results import check_new_files, write_text

if TYPE_CHECKING:
    from resnet_jax.export.runners import Runner
    from resnet_jax.export.timing import Timing


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time exports and networks side by side.

    Each is called with the same images of noise, in turns, so that other work on the machine slows
    down all of them alike. The table has the latency of a batch as the median and as the 90th and
    99th percentile, the throughput, and the size of the file.
    """

    files: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="FILE...")]
    """Exports (.stablehlo, .onnx), and networks, which run with jax.jit: run directories, the names
    of published weights, repositories or copies of them."""
    batch_sizes: tuple[int, ...] = (1, 32)
    """Numbers of images of a batch. An export for one number of images is timed with this alone."""
    seconds: float = 10.0
    """Time for each batch size in seconds, for all files together, after one call of each that
    compiles it. At least three calls of each are timed."""
    size: int | None = None
    """Height and width of the images in pixels, for exports that take images of any size. By
    default they are those of the preprocessing."""
    output: Path | None = None
    """JSON file for the results and all latencies."""
    overwrite: Flag = False
    """Replace a file that exists."""


def run(argv: list[str], prog: str) -> int:
    """Print the table, and return 0, or 130 after Ctrl-C."""
    arguments = parse_options(Arguments, argv, prog=prog)
    if not arguments.files:
        raise UsageError(f"name at least one export or network: {prog} FILE...")
    if not arguments.batch_sizes or min(arguments.batch_sizes) < 1:
        raise UsageError("--batch-sizes must be positive numbers, such as --batch-sizes 1 32")
    if not arguments.seconds > 0:
        raise UsageError(f"--seconds must be positive, but it is {arguments.seconds:g}")
    if arguments.size is not None and arguments.size < 1:
        raise UsageError(f"--size must be at least 1, but it is {arguments.size}")
    check_new_files(arguments.output, overwrite=arguments.overwrite)
    try:
        return _benchmark(arguments)
    except KeyboardInterrupt:
        return 130


def _benchmark(arguments: Arguments) -> int:
    from resnet_jax.export.timing import machine, time_side_by_side

    runners = [_open(arguments, source) for source in arguments.files]
    timings: list[Timing] = []
    for batch in sorted(set(arguments.batch_sizes)):
        fitting = [runner for runner in runners if runner.batch in ("dynamic", batch)]
        timings += time_side_by_side(fitting, batch, seconds=arguments.seconds)
    if not timings:
        raise UsageError(
            "no file takes batches of "
            f"{' or '.join(map(str, arguments.batch_sizes))} images; give --batch-sizes "
            f"{runners[0].batch}"
        )
    description = machine()
    _print(timings)
    print(", ".join(f"{name} {value}" for name, value in description.items()))
    if arguments.output is not None:
        result = {"machine": description, "timings": [timing.to_json() for timing in timings]}
        write_text(arguments.output, json.dumps(result, indent=2) + "\n")
    return 0


def _open(arguments: Arguments, source: str) -> "Runner":
    from resnet_jax.commands.evaluation_data import evaluation_errors
    from resnet_jax.export.runners import open_runner

    with evaluation_errors():
        try:
            runner = open_runner(source)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if arguments.size is None or not runner.any_size:
        return runner
    shape = (arguments.size, arguments.size, runner.image_shape[2])
    return dataclasses.replace(runner, image_shape=shape)


def _print(timings: "list[Timing]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "kind", box=None)
    for heading in ("batch", "images", "calls", "p50 ms", "p90 ms", "p99 ms", "images/s", "MB"):
        table.add_column(heading, justify="right")
    for timing in timings:
        height, width, _ = timing.image_shape
        table.add_row(
            timing.name,
            timing.kind,
            str(timing.batch),
            f"{height}x{width}",
            str(len(timing.latencies)),
            *(f"{1e3 * timing.percentile(q):.1f}" for q in (50, 90, 99)),
            f"{timing.images_per_second:.1f}",
            f"{timing.size / 1e6:.1f}",
        )
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
