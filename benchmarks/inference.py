"""Inference with ResNet-50: images a second at batch sizes 1 and 32.

Ours with BatchNorm as it is and folded, beside Flax's ImageNet example, and beside PyTorch with
torchvision's network in channels-last memory, eager and compiled, where ``--torch-python`` names a
Python that has both.  All run in turn, each for some batches in a row, of which the first does not
count; random images, in float32, on accelerators in bfloat16 with float32 parameters.  Medians; a
first round does not count.

On CPUs each has a process of its own. Ours keep the memory that they free
(`resnet_jax.ops.host_memory`). Flax's example is measured as Flax leaves it, and as "memory kept"
in a process like ours too.

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
    """Measures and prints a table for each batch size."""
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
    """The program of one row, compiled."""
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
    """Prints a table; returns its numbers by name."""
    names = [OURS, FOLDED, *flax_names()]
    results = race("inference.py", build, names, "inference", options, batch_size)
    seconds = {name: result["seconds"] for name, result in results.items()}
    rows = [*names, *torch_names(options)]
    print_table(rows, seconds, batch_size, FLAX, compiled_cells(results), COMPILED)
    return results


if __name__ == "__main__":
    main()
