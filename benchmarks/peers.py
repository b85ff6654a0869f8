"""What all benchmarks share: interleaved rounds, and peers that run in another Python."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jax


class Peer:
    """A script of this directory in a Python of its own, which waits between its rounds.

    It prints the seconds of a first round, compilation included, and those of one more for each
    line that it reads.
    """

    def __init__(self, python: str, script: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name(script)), *options],
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

    def __call__(self) -> float:
        """Seconds of one round."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._read())

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} has ended; its error is above")
        return json.loads(line)


def compiled(program: Any, *inputs: Any) -> tuple[Any, float, float]:
    """A jitted program compiled, the seconds that took, and the GiB it needs at its peak."""
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


def timed(program: Callable[[], Any]) -> Callable[[], float]:
    """The seconds of a call, until its results are there."""

    def call() -> float:
        started = time.perf_counter()
        jax.block_until_ready(program())
        return time.perf_counter() - started

    return call


def interleaved(rounds: int, contenders: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of every round of every contender, in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, run in contenders.items():
            took = run()
            if i:
                seconds[name].append(took)
    return seconds


def print_table(
    rows: list[str],
    seconds: dict[str, list[float]],
    images: int,
    peer: str,
    extra: dict[str, tuple[str, ...]],
    headings: tuple[str, ...],
) -> None:
    """A Markdown table of images a second: median, extremes, ratio to the median of ``peer``."""
    print("| " + " | ".join(("", "images/s", "min - max", f"x {peer}", *headings)) + " |")
    print("|---" + "|---:" * (3 + len(headings)) + "|")
    for name in rows:
        cells = ("not measured",) * (3 + len(headings))
        if name in seconds:
            speeds = [images / took for took in seconds[name]]
            median = statistics.median(speeds)
            ratio = median / statistics.median(images / took for took in seconds[peer])
            cells = (
                f"{median:.2f}",
                f"{min(speeds):.2f} - {max(speeds):.2f}",
                f"{ratio:.2f}",
                *extra[name],
            )
        print("| " + " | ".join((name, *cells)) + " |")
