"""Measure time and memory of loading ResNet-50 from ``.safetensors``, and of reading it into NumPy.

Each round is a process of its own that loads the file twice; the file is in the cache of the
system.  The first load includes what a program pays once after its imports.  Peak memory is the
increase of the peak of the process during the first load, divided by the size of the file.

    python -m benchmarks.load_weights
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from resnet_jax import create_model, load_weights
from tests.golden import golden

MODEL = "resnet50"


def to_host(path: Path) -> Any:
    """Call `load_weights`, which returns NumPy arrays."""
    return load_weights(create_model(MODEL), path)


def to_device(path: Path) -> Any:
    """Call `load_weights`, and put the result on the device."""
    return jax.block_until_ready(jax.device_put(to_host(path)))


PEER = "safetensors.numpy.load_file"
CONTENDERS: dict[str, Callable[[Path], Any]] = {
    PEER: load_file,
    "load_weights": to_host,
    "load_weights, device_put": to_device,
}


def measure(name: str, path: Path) -> dict[str, float]:
    """Return the seconds of two loads, and the peak memory divided by the size of the file."""
    load = CONTENDERS[name]
    jax.devices()
    Path("/proc/self/clear_refs").write_text("5")  # Resets the peak.
    before = _memory("VmRSS")
    started = time.perf_counter()
    loaded = load(path)
    first = time.perf_counter() - started
    peak = _memory("VmHWM") - before
    del loaded
    started = time.perf_counter()
    load(path)
    second = time.perf_counter() - started
    return {"first": first, "second": second, "memory": peak / path.stat().st_size}


def _memory(field: str) -> int:
    """Return a field of Linux's ``/proc/self/status`` in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="number of processes per contender")
    parser.add_argument("--half", action="store_true", help="use a file of float16")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(measure(options.contender, options.path)))
        return

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "weights.safetensors"
        dtype = np.float16 if options.half else np.float32
        save_file({k: v.astype(dtype) for k, v in golden.state_dict(MODEL).items()}, path)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for _ in range(options.rounds):
            for name, results in rounds.items():
                command = [sys.executable, "-m", "benchmarks.load_weights", "--contender", name]
                output = subprocess.check_output([*command, "--path", str(path)], text=True)
                results.append(json.loads(output))

    def median(name: str, field: str) -> float:
        return statistics.median(result[field] for result in rounds[name])

    print(f"| | first ms | min - max | x {PEER} | second ms | x {PEER} | peak memory x file |")
    print("|---" + "|---:" * 6 + "|")
    for name, results in rounds.items():
        first = [1000 * result["first"] for result in results]
        cells = (
            name,
            f"{statistics.median(first):.0f}",
            f"{min(first):.0f} - {max(first):.0f}",
            f"{median(name, 'first') / median(PEER, 'first'):.2f}",
            f"{1000 * median(name, 'second'):.0f}",
            f"{median(name, 'second') / median(PEER, 'second'):.2f}",
            f"{median(name, 'memory'):.2f}",
        )
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
