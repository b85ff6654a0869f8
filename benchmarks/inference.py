"""Measure inference with ResNet-50 in images per second, at batch sizes 1 and 32.

Our network, unchanged and with BatchNorm folded, is compared with that of Flax's ImageNet example.
If ``--torch-python`` names a Python with PyTorch and torchvision, it is also compared with
torchvision's network in channels-last memory, eager and compiled.  The contenders take turns, each
for some batches in a row, the first of which does not count.  Images are random.  CPUs compute in
float32, accelerators in bfloat16 with float32 parameters.  The table shows medians; a first round
does not count.

On CPUs each contender has a process of its own.  Our processes keep freed memory
(`resnet_jax.ops.host_memory`).  Flax's example runs twice: unchanged, and as "memory kept" in a
process like ours.

    python -m benchmarks.inference --torch-python /path/to/python
"""

import argparse
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import flax_example
from benchmarks.peers import (
    COMPILED,
    FLAX,
    Program,
    compiled,
    compiled_cells,
    flax_names,
    parse_options,
    print_table,
    race,
    serve,
    torch_names,
    write_json,
)
from resnet_jax import create_model
from resnet_jax.inference.fold import fold_batch_norm

OURS, FOLDED = "resnet_jax", "resnet_jax, folded"


def main() -> None:
    """Measure, and print a table for each batch size."""
    options = parse_options(__doc__, batch_sizes=[1, 32])
    if options.serve:
        serve(build(options.serve, options, options.batch_sizes[0]))
        return
    results = {}
    for batch_size in options.batch_sizes:
        print(f"\nbatch {batch_size}, {options.dtype}\n", flush=True)
        results[batch_size] = measure(options, batch_size)
    if options.json:
        write_json(options.json, options, results)


def build(name: str, options: argparse.Namespace, batch_size: int) -> Program:
    """Return the compiled program of one row."""
    size, dtype = options.image_size, jnp.dtype(options.dtype)
    images = jax.random.normal(jax.random.key(0), (batch_size, size, size, 3), dtype)
    if name not in (OURS, FOLDED):
        return flax_example.inference(images, dtype=dtype)
    model = create_model("resnet50", dtype=dtype)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(1), images[:1])
    if name == FOLDED:
        model, variables = fold_batch_norm(model, variables)
    apply = jax.jit(partial(model.apply, train=False))
    executable, seconds, gibibytes = compiled(apply, variables, images)
    return Program(partial(executable, variables, images), seconds, gibibytes)


def measure(options: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    """Measure one batch size, print a table, and return its numbers by row."""
    names = [OURS, FOLDED, *flax_names()]
    results = race("inference.py", build, names, "inference", options, batch_size)
    seconds = {name: result["seconds"] for name, result in results.items()}
    rows = [*names, *torch_names(options)]
    print_table(rows, seconds, batch_size, FLAX, compiled_cells(results), COMPILED)
    return results


if __name__ == "__main__":
    main()
