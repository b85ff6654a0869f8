"""Compare `resnet-jax predict` with its peers, from files to a table of predictions.

    python -m benchmarks.predict --torch-python TORCH

The benchmark makes JPEG files of 500x375 pixels from the photographs of scikit-learn and
scikit-image, and a ResNet-50 with random weights.  Each contender is a process of its own that
starts, loads the network, compiles if it does, predicts all files at 224 pixels, and writes the
five most probable classes to a CSV file.  The table shows the wall time from the start to the end
of the process.  It also shows the peak memory of the process and its children together; memory that
they share is counted once.

- timm: the procedure of its ``inference.py`` with the default options, batches of 256 and two
  loading processes, in the default and in the channels-last memory format;
- transformers: ``pipeline("image-classification")`` with batches of 16 and two loading processes.

Both run in PyTorch's eager mode.  All contenders have the same two cores, and take turns.  The
peers need an environment of their own:

    python -m venv torch && torch/bin/pip install torch torchvision timm transformers

Without it only our command is measured.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.input_pipeline import make_images
from benchmarks.peers import print_table, write_json

OURS = "resnet-jax predict"
PEERS = {
    "timm inference.py": "timm",
    "timm inference.py, channels last": "timm-channels-last",
    "transformers pipeline": "transformers",
}
THREADS = 2
# Interval at which the memory is read, in seconds.
_INTERVAL = 0.1


def cached_images(cache: Path, count: int) -> Path:
    """Return a directory with the files, which are made only once."""
    directory = cache / f"images-{count}"
    if not directory.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            made = Path(temporary) / "made"
            make_images(made, count)
            made.rename(directory)
    return directory


def cached_weights(cache: Path) -> Path:
    """Return a repository of random weights, whose names and files suit timm and us.

    The subdirectory ``transformers`` has the same weights in the layout of transformers.
    """
    directory = cache / "resnet50"
    if not (directory / "transformers" / "model.safetensors").exists():
        import jax
        import numpy as np
        from safetensors.numpy import load_file, save_file

        from resnet_jax import create_model, save_weights

        (directory / "transformers").mkdir(parents=True, exist_ok=True)
        model = create_model("resnet50")
        variables = model.init(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32), train=False)
        save_weights(model, variables, directory / "model.safetensors")
        config = {
            "architecture": "resnet50",
            "num_classes": 1000,
            "pretrained_cfg": {
                "input_size": [3, 224, 224],
                "crop_pct": 0.875,
                "interpolation": "bicubic",
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            },
        }
        (directory / "config.json").write_text(json.dumps(config))
        tensors = load_file(directory / "model.safetensors")
        save_file(
            {transformers_name(name): tensor for name, tensor in tensors.items()},
            directory / "transformers" / "model.safetensors",
            # transformers refuses files that do not say this.
            metadata={"format": "pt"},
        )
    return directory


def transformers_name(name: str) -> str:
    """Return the name of a tensor of torchvision's ResNet in transformers.

    >>> transformers_name("layer1.0.downsample.1.running_mean")
    'resnet.encoder.stages.0.layers.0.shortcut.normalization.running_mean'
    """
    parts = name.split(".")
    leaf = parts[-1]
    if parts[0] == "fc":
        return f"classifier.1.{leaf}"
    if not parts[0].startswith("layer"):
        kind = "convolution" if parts[0] == "conv1" else "normalization"
        return f"resnet.embedder.embedder.{kind}.{leaf}"
    block = f"resnet.encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
    if parts[2] == "downsample":
        kind = ("convolution", "normalization")[int(parts[3])]
        return f"{block}.shortcut.{kind}.{leaf}"
    kind = "convolution" if parts[2].startswith("conv") else "normalization"
    return f"{block}.layer.{int(parts[2][-1]) - 1}.{kind}.{leaf}"


def measure(command: list[str]) -> tuple[float, float]:
    """Run a process with two cores, and return its wall seconds and its peak memory in MiB."""
    cores = sorted(os.sched_getaffinity(0))[:THREADS]
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"},
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_kib(process.pid))
        time.sleep(_INTERVAL)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} has ended with code {process.returncode}")
    return seconds, peak / 1024


def resident_kib(pid: int) -> int:
    """Return the memory of a process and its descendants in KiB, shared pages counted once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = [
            child
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # It has just ended.
        return 0
    own = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
    return sum(own) + sum(resident_kib(int(child)) for child in children)


def best(path: Path) -> dict[str, tuple[int, float]]:
    """Return the most probable class of each file, and its probability."""
    with path.open(newline="") as file:
        return {
            str(Path(row["image"]).relative_to(Path(row["image"]).parents[1])): (
                int(row["class_index_1"]),
                float(row["probability_1"]),
            )
            for row in csv.DictReader(file)
        }


def main() -> None:
    """Make the files, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--torch-python", help="a Python with PyTorch, torchvision, timm and transformers"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "resnet_jax_benchmark",
        help="directory for the files and the weights",
    )
    parser.add_argument("--options", default="", help="more options of our command")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()

    images, weights = cached_images(options.cache, options.images), cached_weights(options.cache)
    with tempfile.TemporaryDirectory() as directory:
        tables = {name: Path(directory) / f"{i}.csv" for i, name in enumerate([OURS, *PEERS])}
        ours = (sys.executable, "-m", "resnet_jax", "predict", str(weights), str(images))
        contenders = {
            OURS: [*ours, f"--output={tables[OURS]}", "--overwrite", *options.options.split()]
        }
        if options.torch_python:
            for name, peer in PEERS.items():
                shared = (peer, str(weights), str(images), str(tables[name]), str(THREADS))
                contenders[name] = [options.torch_python, "-m", "benchmarks.torch_predict", *shared]
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, command in contenders.items():
                rounds[name].append(measure(command))
                print(f"{name}: {rounds[name][-1][0]:.1f} s", file=sys.stderr)
        found = {name: best(tables[name]) for name in contenders}

    seconds = {name: [took for took, _ in taken] for name, taken in rounds.items()}
    extra = {
        name: (
            f"{statistics.median(taken):.1f}",
            f"{max(peak for _, peak in rounds[name]):,.0f}",
            f"{agreement(found[OURS], found[name]):.1%}",
        )
        for name, taken in seconds.items()
    }
    headings = ("seconds", "peak MiB", "same class as ours")
    print_table([OURS, *PEERS], seconds, options.images, OURS, extra, headings)
    if options.json:
        write_json(options.json, options, rounds)


def agreement(ours: dict[str, tuple[int, float]], theirs: dict[str, tuple[int, float]]) -> float:
    """Return the share of images for which both find the same class most probable."""
    assert ours.keys() == theirs.keys()
    return statistics.mean(ours[name][0] == theirs[name][0] for name in ours)


if __name__ == "__main__":
    main()
