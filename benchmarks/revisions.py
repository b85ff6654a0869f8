"""Compare two checkouts of this project in turn: is one of them slower?

    python -m benchmarks.revisions BEFORE AFTER --rounds 5

Each checkout is a directory with an environment in `.venv` (``pip install -e '.[dev]'``). Both are
measured alternately, in processes of their own, so that a machine whose speed drifts treats both
alike. The table shows the median time of each and the median, minimum and maximum of the ratios
AFTER / BEFORE, round by round:

- the training step of ResNet-50 at 224 pixels, batch 16,
- inference with BatchNorm folded, ResNet-50 at 224 pixels, batch 32,
- tracing, lowering and compiling the training step of ResNet-152 at 64 pixels, batch 2, without a
  compilation cache, its blocks unrolled and scanned,
- `python train.py`, the digits experiment from start to report,
- the part of it that is not spent in training steps, and the processor time of one epoch of it.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Measure = Callable[[], float]

# A compilation cache would hide the time of compilation, which is measured.
_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
} | {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def python(checkout: Path, *arguments: str) -> list[str]:
    """Return a command line of a checkout's own Python."""
    return [str(checkout / ".venv" / "bin" / "python"), *arguments]


@contextlib.contextmanager
def served(checkout: Path, module: str, row: str, batch_size: int) -> Iterator[Measure]:
    """Yield a function that returns the seconds of one call of a benchmark's row."""
    command = python(
        checkout, "-m", f"benchmarks.{module}", f"--serve={row}", f"--batch-sizes={batch_size}"
    )
    with subprocess.Popen(
        command,
        cwd=checkout,
        env=_ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        stdout.readline()

        def seconds() -> float:
            stdin.write("\n")
            stdin.flush()
            return float(json.loads(stdout.readline()))

        try:
            yield seconds
        finally:
            process.kill()


def compile_seconds(checkout: Path, way: str) -> float:
    """Return the seconds from tracing to the executable of a ResNet-152's training step."""
    command = python(
        checkout, "-m", "benchmarks.compile_time", "--here", "--networks=resnet152", f"--ways={way}"
    )
    output = subprocess.run(
        command, cwd=checkout, env=_ENVIRONMENT, check=True, stdout=subprocess.PIPE
    ).stdout
    return sum(json.loads(output).values())


def digits(checkout: Path, *options: str) -> tuple[float, float, float]:
    """Return the seconds of the digits experiment, start of Python included.

    Returns:
        The wall time, the part of it that is not spent in training steps, and the processor time.
    """
    with tempfile.TemporaryDirectory() as directory:
        workdir = Path(directory) / "run"
        before, started = os.times(), time.perf_counter()
        subprocess.run(
            python(checkout, "train.py", f"--workdir={workdir}", *options),
            cwd=checkout,
            env=_ENVIRONMENT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        wall, after = time.perf_counter() - started, os.times()
        result = json.loads((workdir / "result.json").read_text())
    processor = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return wall, wall - result["goodput"]["step"] * result["seconds"], processor


def main() -> None:
    """Measure both checkouts in turn and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="checkout to compare with")
    parser.add_argument("after", type=Path, help="checkout that may be slower")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="first words of the rows to measure")
    options = parser.parse_args()
    checkouts = [options.before.resolve(), options.after.resolve()]
    rows: dict[str, Callable[[Path], contextlib.AbstractContextManager[Measure]]] = {
        "training step": lambda path: served(path, "train_step", "resnet_jax", 16),
        "folded inference": lambda path: served(path, "inference", "resnet_jax, folded", 32),
        "compile unrolled": lambda path: contextlib.nullcontext(
            lambda: compile_seconds(path, "unrolled")
        ),
        "compile scanned": lambda path: contextlib.nullcontext(
            lambda: compile_seconds(path, "scanned")
        ),
        "digits": lambda path: contextlib.nullcontext(lambda: digits(path)[0]),
        "start of digits": lambda path: contextlib.nullcontext(lambda: digits(path)[1]),
        "processor time": lambda path: contextlib.nullcontext(
            lambda: digits(path, "--epochs=1")[2]
        ),
    }
    print("| | before, s | after, s | after / before | min - max |")
    print("|---|---:|---:|---:|---:|")
    for name, start in rows.items():
        if options.only and not name.startswith(tuple(options.only)):
            continue
        with start(checkouts[0]) as before, start(checkouts[1]) as after:
            pairs = [(before(), after()) for _ in range(options.rounds)]
        ratios = [new / old for old, new in pairs]
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        print(
            f"| {name} | {medians[0]:.2f} | {medians[1]:.2f} | {statistics.median(ratios):.3f} "
            f"| {min(ratios):.3f} - {max(ratios):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
