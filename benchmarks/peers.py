"""Shared by the benchmarks: rounds in which contenders take turns, and peers in another Python."""

import argparse
import dataclasses
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import jax

from resnet_jax.ops.host_memory import keep_freed_memory

FLAX, FLAX_KEPT = "Flax example", "Flax example, memory kept"
RETURNED = "resnet_jax, memory returned"
TORCH = {"PyTorch eager": (), "torch.compile": ("--compile",)}
TIMM = {"timm eager": ("--timm",), "timm, torch.compile": ("--timm", "--compile")}

IN_A_ROW = 3
"""Number of calls per turn of a `Program` that count."""


class Peer:
    """A script of this directory that runs in a process of its own and waits between its rounds.

    The script prints the seconds of a first round, including compilation.  It then prints the
    seconds of one more round for each line that it reads.
    """

    def __init__(self, python: str, script: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [python, "-m", f"benchmarks.{Path(script).stem}", *options],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first_seconds = float(self._read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def __call__(self, request: str = "") -> float:
        """Return the seconds of one round, or the answer of the script to another request."""
        assert self.process.stdin is not None
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return float(self._read())

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} has ended; its error message is above")
        return json.loads(line)


def parse_options(description: str | None, *, batch_sizes: list[int]) -> argparse.Namespace:
    """Parse the options that the benchmarks next to PyTorch share.

    From this call on the process keeps freed memory, except for the unchanged Flax example and for
    the row that measures what this saves.

    Args:
        description: Description of the benchmark.
        batch_sizes: Default batch sizes on CPUs.  Accelerators have other defaults.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="compute type; parameters are float32 (default: float32 on CPUs, else bfloat16)",
    )
    parser.add_argument("--torch-python", help="a Python with PyTorch and torchvision")
    parser.add_argument(
        "--timm",
        action="store_true",
        help="also measure timm's network, from that Python",
    )
    parser.add_argument(
        "--parts",
        action="store_true",
        help="compare our step with itself without some of its parts, and with nothing else",
    )
    parser.add_argument("--serve", metavar="ROW", help="serve a row to another process")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    # Must come before JAX creates its backend, which then computes in the calling thread.
    if options.serve not in (FLAX, RETURNED):
        keep_freed_memory()
    cpu = jax.default_backend() == "cpu"
    options.batch_sizes = options.batch_sizes or (batch_sizes if cpu else [64, 128, 256, 512])
    options.rounds = options.rounds or (5 if cpu else 20)
    options.dtype = options.dtype or ("float32" if cpu else "bfloat16")
    return options


def flax_names() -> list[str]:
    """Return the rows of Flax's example: unchanged, and on CPUs also with freed memory kept."""
    return [FLAX, FLAX_KEPT] if jax.default_backend() == "cpu" else [FLAX]


def serve(program: "Program") -> None:
    """Answer the requests of a `Peer` on standard input."""
    print(json.dumps(program()), flush=True)
    for line in sys.stdin:
        print(json.dumps(program(line.strip())), flush=True)


def torch_peers(options: argparse.Namespace, mode: str, batch_size: int) -> dict[str, Peer]:
    """Start PyTorch's networks and return them by name; none without ``--torch-python``."""
    if not options.torch_python:
        return {}
    shared = (
        mode,
        f"--batch-size={batch_size}",
        f"--image-size={options.image_size}",
        f"--dtype={options.dtype}",
        f"--device={'cpu' if jax.default_backend() == 'cpu' else 'cuda'}",
    )
    flags = TORCH | TIMM
    return {
        name: Peer(options.torch_python, "torch_resnet50.py", *shared, *flags[name])
        for name in torch_names(options)
    }


def torch_names(options: argparse.Namespace) -> list[str]:
    """Return the rows of the table for PyTorch's networks."""
    return [*TORCH, *(TIMM if options.timm else ())]


def write_json(path: Path, options: argparse.Namespace, results: Any) -> None:
    """Write the results with date, version, device and options."""
    device = jax.devices()[0]
    path.write_text(
        json.dumps(
            {
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "jax": jax.__version__,
                "device": device.device_kind,
                "platform": device.platform,
                "options": {key: str(value) for key, value in vars(options).items()},
                "results": results,
            },
            indent=2,
        )
    )


def compiled(program: Any, *inputs: Any) -> tuple[Any, float, float]:
    """Compile a jitted program; return it, the seconds that took, and its peak memory in GiB."""
    started = time.perf_counter()
    executable = program.lower(*inputs).compile()
    seconds = time.perf_counter() - started
    memory = executable.memory_analysis()
    needed = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    return executable, seconds, needed / 2**30


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program that is called like a `Peer`."""

    run: Callable[[], Any]
    seconds: float
    gibibytes: float

    def __call__(self, request: str = "") -> float:
        """Return the seconds of a call, the seconds of compilation, or the peak memory in GiB.

        The seconds of a call are the median of some calls in a row, as in training.  One more call
        comes first and does not count: the system may have taken memory from the idle process.
        """
        match request:
            case "seconds":
                return self.seconds
            case "gibibytes":
                return self.gibibytes
            case _:
                call = timed(self.run)
                call()
                return statistics.median(call() for _ in range(IN_A_ROW))


class Stepper:
    """A compiled training step and its current state."""

    def __init__(self, step: Any, state: Any, *inputs: Any) -> None:
        self.step, self.seconds, self.gibibytes = compiled(
            jax.jit(step, donate_argnums=0), state, *inputs
        )
        self.state, self.inputs = state, inputs

    def __call__(self) -> Any:
        """Run one step; return the new state and the metrics."""
        self.state, metrics = self.step(self.state, *self.inputs)
        return self.state, metrics


def timed(program: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that runs a program and returns the seconds until it is done."""

    def call() -> float:
        started = time.perf_counter()
        jax.block_until_ready(program())
        return time.perf_counter() - started

    return call


def interleaved(rounds: int, contenders: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return the seconds of each round of contenders that take turns; a first round is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, run in contenders.items():
            took = run()
            if i:
                seconds[name].append(took)
    return seconds


def race(
    script: str,
    build: Callable[[str, argparse.Namespace, int], Program],
    rows: list[str],
    mode: str,
    options: argparse.Namespace,
    batch_size: int,
) -> dict[str, dict[str, Any]]:
    """Run all contenders in turn.

    On CPUs each contender has a process of its own, so that they do not share a heap.

    Args:
        script: Script that serves a row with ``--serve``.
        build: Function that builds the program of a row.
        rows: The rows that use JAX.
        mode: Mode of PyTorch's networks, ``"train"`` or ``"inference"``.
        options: Options of the command line.
        batch_size: Number of images per call.

    Returns:
        For each row the seconds of each round, the images per second of their median, and time and
        memory of the compiled program.
    """
    shared = (
        f"--batch-sizes={batch_size}",
        f"--image-size={options.image_size}",
        f"--dtype={options.dtype}",
    )
    with ExitStack() as stack:
        programs: dict[str, Program | Peer] = {}
        for name in rows:
            if jax.default_backend() == "cpu":
                peer = Peer(sys.executable, script, f"--serve={name}", *shared)
                programs[name] = stack.enter_context(peer)
            else:
                programs[name] = build(name, options, batch_size)
        peers = torch_peers(options, mode, batch_size)
        for peer in peers.values():
            stack.enter_context(peer)
        rounds = interleaved(options.rounds, programs | peers)
        results: dict[str, dict[str, Any]] = {
            name: {
                "seconds": seconds,
                "images_per_second": batch_size / statistics.median(seconds),
            }
            for name, seconds in rounds.items()
        }
        for name, program in programs.items():
            results[name]["compile_seconds"] = program("seconds")
            results[name]["peak_gibibytes"] = program("gibibytes")
        for name, peer in peers.items():
            results[name]["first_call_seconds"] = peer.first_seconds
    return results


COMPILED = ("compile s", "peak GiB")
"""Headings of the columns that `compiled_cells` returns."""


def compiled_cells(results: dict[str, dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return compile time and peak memory as table cells, by row."""
    return {
        name: (
            f"{result.get('compile_seconds', result.get('first_call_seconds')):.1f}",
            f"{result['peak_gibibytes']:.2f}" if "peak_gibibytes" in result else "not measured",
        )
        for name, result in results.items()
    }


def print_table(
    rows: list[str],
    seconds: dict[str, list[float]],
    images: int,
    peer: str,
    extra: dict[str, tuple[str, ...]],
    headings: tuple[str, ...],
) -> None:
    """Print a Markdown table of images per second: median, range, and ratio to ``peer``."""
    print("| " + " | ".join(("", "images/s", "min - max", f"x {peer}", *headings)) + " |")
    print("|---" + "|---:" * (3 + len(headings)) + "|")
    for name in rows:
        cells = ("not measured",) * (3 + len(headings))
        if name in seconds:
            speeds = [images / took for took in seconds[name]]
            median = statistics.median(speeds)
            ratio = median / statistics.median(images / took for took in seconds[peer])
            digits = 2 if median < 100 else 0
            cells = (
                f"{median:.{digits}f}",
                f"{min(speeds):.{digits}f} - {max(speeds):.{digits}f}",
                f"{ratio:.2f}",
                *extra[name],
            )
        print("| " + " | ".join((name, *cells)) + " |")
