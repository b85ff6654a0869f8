"""Measure each kernel of BatchNorm, addition and ReLU next to the same formula compiled by XLA.

The arrays are the outputs of the layers of ResNet-50.  The kernel and the formula take turns, and
the table has the bytes that a perfect program would move, divided by the median time.  A program
that is bound by memory reaches the bandwidth of the device; see `benchmarks.bounds`.  On CPUs both
are the formula.

    python -m benchmarks.normalization_kernels
"""

import argparse
import math
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import interleaved, timed, write_json
from resnet_jax.ops.normalization_kernels import Kernel, Pass, run

# Height and channels of the outputs of convolutions, for images of 224 pixels.
LAYERS = [(112, 64), (56, 64), (56, 256), (28, 128), (28, 512), (14, 1024), (7, 512), (7, 2048)]

# Number of arrays that the passes read with a shortcut, and that they write; without one, each
# reads one array less, and GRADIENTS writes one less.
TRAFFIC = {Pass.APPLY: (2, 1), Pass.SUMS: (3, 0), Pass.GRADIENTS: (3, 2)}

VECTORS = {Pass.APPLY: 3, Pass.SUMS: 3, Pass.GRADIENTS: 5}


def measure(part: Pass, shape: tuple[int, ...], dtype: Any, rounds: int) -> dict[str, Any]:
    """Return the seconds of each round of both programs, and the bytes that each moves."""
    with_shortcut = shape[-1] >= 256
    reads, writes = TRAFFIC[part]
    if not with_shortcut:
        reads, writes = reads - 1, min(writes, 1)
    keys = jax.random.split(jax.random.key(0), reads + 1)
    images = [jax.random.normal(key, shape, dtype) for key in keys[:-1]]
    vectors = jax.random.normal(keys[-1], (1, VECTORS[part], shape[-1]))
    kernel = Kernel(part, True, (jnp.dtype(dtype),) * writes)
    programs = {
        "kernel": jax.jit(partial(run, kernel, "accelerator")),
        "XLA": jax.jit(kernel.formula),
    }
    calls = {name: timed(partial(program, *images, vectors)) for name, program in programs.items()}
    seconds = interleaved(rounds, calls)
    moved = (reads + writes) * math.prod(shape) * jnp.dtype(dtype).itemsize
    return {"shape": shape, "shortcut": with_shortcut, "bytes": moved, "seconds": seconds}


def main() -> None:
    """Measure all kernels, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    results = []
    print("| pass | pixels | channels | shortcut | kernel GB/s | XLA GB/s | kernel / XLA, time |")
    print("|---|---:|---:|---|---:|---:|---:|")
    for height, channels in LAYERS:
        pixels = (height * options.image_size // 224) ** 2
        shape = options.batch_size, max(1, pixels), channels
        for part in Pass:
            result = measure(part, shape, options.dtype, options.rounds)
            results.append({"pass": part.value} | result)
            ours, theirs = (statistics.median(s) for s in result["seconds"].values())
            cells = [part.value, shape[1], channels, "yes" if result["shortcut"] else "no"]
            cells += [f"{result['bytes'] / took / 1e9:.0f}" for took in (ours, theirs)]
            print("| " + " | ".join(map(str, [*cells, f"{ours / theirs:.2f}"])) + " |", flush=True)
    if options.json:
        write_json(options.json, options, results)


if __name__ == "__main__":
    main()
