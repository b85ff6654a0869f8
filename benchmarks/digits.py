"""Train the digits with seeds 0 to 4, and write their accuracies and wall times.

    python -m benchmarks.digits

It writes `docs/results/digits-resnet20.json`, the one source of these figures, and prints the
row of the table in the README, which a test compares with it.  Run it in a clean clone on a
machine that does nothing else.  The wall time contains the start of Python and the compilation.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results" / "digits-resnet20.json"


def row(results: dict[str, Any]) -> str:
    """Return the row of the README's table for the content of the results file."""
    top1 = ", ".join(f"{100 * value:.2f} %" for value in results["top1"])
    mean = f"{100 * statistics.mean(results['top1']):.2f} %"
    seconds = ", ".join(f"{value:.0f} s" for value in results["seconds"])
    cells = ("experiment", "machine", "jax", "date", "commit")
    experiment, machine, jax, date, commit = (results[cell] for cell in cells)
    made = f"{machine}, jax {jax} | {date}, `{commit}`"
    return f"| `{experiment}` | {mean} ({top1}) | {seconds} | {made} |"


def train(seed: int, options: list[str]) -> tuple[float, float]:
    """Train in a process of its own; return top-1, 0 to 1, and the wall time in seconds."""
    with tempfile.TemporaryDirectory() as directory:
        workdir = Path(directory) / "run"
        command = [sys.executable, "train.py", "digits-resnet20", "--seed", str(seed)]
        started = time.perf_counter()
        subprocess.run(
            [*command, "--workdir", str(workdir), *options],
            cwd=ROOT,
            check=True,
            env={k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
        )
        seconds = time.perf_counter() - started
        return json.loads((workdir / "result.json").read_text())["top1"], seconds


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores, {platform.machine()}")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 on")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="for train.py")
    arguments = parser.parse_args()
    runs = [train(seed, arguments.options) for seed in range(arguments.seeds)]
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True)
    results = {
        "experiment": "digits-resnet20",
        "top1": [top1 for top1, _ in runs],
        "seconds": [round(seconds, 1) for _, seconds in runs],
        "machine": arguments.machine,
        "jax": version("jax"),
        "date": datetime.date.today().isoformat(),
        "commit": commit.strip(),
    }
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    print(row(results))


if __name__ == "__main__":
    main()
