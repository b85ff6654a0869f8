"""Train the digits with one ingredient changed at a time, and write accuracies and wall times.

    python -m benchmarks.ablation
    python -m benchmarks.ablation --only "SAM" "AdamW" --seeds 5

The accuracy is measured on validation images. `--data.evaluate-on validation` takes them from the
training images, and the test images are never read.  Each run is a separate process.  All variants
are trained with one seed before any is trained with the next seed, so that a slow minute of the
machine affects all variants about equally.  The script writes `docs/results/ablation-digits.json`
and prints the rows of a table.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.digits import ROOT, train

RESULTS = ROOT / "docs" / "results" / "ablation-digits.json"
NUM_IMAGES = 360
"""Number of validation images."""

BASELINE = "baseline"
VARIANTS: dict[str, str] = {
    BASELINE: "",
    "no augmentation": "--data.max-rotation 0 --data.max-scaling 0 --data.max-shift 0",
    "no label smoothing": "--loss.label-smoothing 0",
    "no weight decay": "--optimizer.weight-decay 0",
    "sigmoid loss, summed": "--loss.kind sigmoid --loss.reduction sum",
    "focal loss": "--loss.kind focal",
    "schedule in steps": "--schedule.kind steps --schedule.warmup-epochs 2 "
    "--schedule.decay-epochs 12 20",
    "one-cycle schedule": "--schedule.kind one_cycle",
    "AdamW": "--optimizer.kind adamw --optimizer.learning-rate 0.003",
    "LAMB": "--optimizer.kind lamb",
    "Muon": "--optimizer.kind muon",
    "SAM": "--sam.rho 0.05",
    "adaptive clipping": "--clip.adaptive 0.01",
    "moving averages": "--averaging.decay 0.99 --averaging.warmup tensorflow",
    "SWA": "--averaging.equal-weights True --averaging.every-steps epoch "
    "--averaging.start-epoch 15 --averaging.statistics recomputed",
    "stochastic depth": "--model.drop-path-rate 0.1",
    "two microbatches": "--accumulate-steps 2",
    "bfloat16": "--model.dtype bfloat16",
}
"""Options for `train.py digits-resnet20`, by what they change."""


def rows(results: dict[str, Any]) -> list[str]:
    """Return the rows of the table for the content of the results file."""
    variants = results["variants"]
    baseline = statistics.median(variants[BASELINE]["seconds"])
    table = []
    for name, measured in variants.items():
        errors = [round(NUM_IMAGES * (1 - top1)) for top1 in measured["top1"]]
        mean = statistics.mean(measured["top1"])
        cost = statistics.median(measured["seconds"]) / baseline
        options = f"`{measured['options']}`" if measured["options"] else ""
        listed = ", ".join(map(str, errors))
        table.append(f"| {name} | {100 * mean:.1f} % | {listed} | {cost:.2f} | {options} |")
    return table


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores, {platform.machine()}")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 on")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    chosen = {name: VARIANTS[name] for name in dict.fromkeys([BASELINE, *arguments.only])}
    measured: dict[str, Any] = {
        name: {"options": options, "top1": [], "seconds": []} for name, options in chosen.items()
    }
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True)
    for seed in range(arguments.seeds):
        for name, options in chosen.items():
            top1, seconds = train(seed, ["--data.evaluate-on", "validation", *options.split()])
            measured[name]["top1"].append(top1)
            measured[name]["seconds"].append(round(seconds, 1))
    results = {
        "experiment": "digits-resnet20",
        "variants": measured,
        "machine": arguments.machine,
        "jax": version("jax"),
        "date": datetime.date.today().isoformat(),
        "commit": commit.strip(),
    }
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    print("\n".join(rows(results)))


if __name__ == "__main__":
    main()
