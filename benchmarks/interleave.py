"""Peers that are measured in turns, each in a process and an interpreter of its own.

On a machine that others use as well, only what ran at the same time can be compared.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Peer(NamedTuple):
    """What is measured.

    Attributes:
        name: for the table.
        command: starts a process that calls `serve`.
    """

    name: str
    command: Sequence[str]


def serve(measure: Callable[[], float]) -> None:
    """Measures once for each line on standard input, and prints the result; for peers."""
    # One round unmeasured: caches, compilation, threads.
    measure()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(measure(), flush=True)


def rounds(peers: Sequence[Peer], count: int) -> dict[str, list[float]]:
    """Results of every peer in so many rounds, one peer after the other in each.

    A peer whose process does not come up is left out, with a message on standard error.
    """
    processes = {}
    for peer in peers:
        process = subprocess.Popen(
            peer.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        for line in process.stdout:
            if line.strip() == "ready":
                processes[peer.name] = process
                break
        else:
            print(f"{peer.name}: not measured, its process has ended", file=sys.stderr)
    results: dict[str, list[float]] = {name: [] for name in processes}
    try:
        for _ in range(count):
            for name, process in processes.items():
                assert process.stdin
                assert process.stdout
                process.stdin.write("\n")
                process.stdin.flush()
                results[name].append(float(process.stdout.readline()))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return results


def table(results: dict[str, list[float]], unit: str, reference: str) -> str:
    """Markdown: median, spread, and the ratio to a reference, round by round."""
    head = f"| | {unit}, median | lowest to highest | ratio to {reference} |"
    lines = [head, "|---|---|---|---|"]
    for name, values in results.items():
        ratio = (
            statistics.median(
                ours / theirs for ours, theirs in zip(values, results[reference], strict=True)
            )
            if reference in results
            else float("nan")
        )
        lines.append(
            f"| {name} | {statistics.median(values):.3g} | {min(values):.3g} to {max(values):.3g} "
            f"| {ratio:.2f} |"
        )
    return "\n".join(lines)
