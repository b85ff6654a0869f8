"""Measure a training step of ResNet-50: images per second, seconds to compile, peak memory.

It is compared with the same step of Flax's ImageNet example.  If ``--torch-python`` names a Python
with PyTorch and torchvision, it is also compared with torchvision's network in channels-last
memory, eager and compiled.  The contenders take turns, each for some steps in a row, the first of
which does not count.  Images are random, and the optimizer is SGD with Nesterov momentum.  CPUs
compute in float32, accelerators in bfloat16 with float32 parameters.  The table shows medians; a
first round does not count.

On CPUs each contender has a process of its own.  Our processes keep freed memory, as the `train`
command does.  Flax's example runs twice: unchanged, and as "memory kept" in a process like ours.

    python -m benchmarks.train_step --torch-python /path/to/python

With ``--parts``, our step is instead compared with itself without the hand-written gradient of
BatchNorm, and with memory that is returned to the system after each step.

On accelerators, "MFU" is the share of the peak of bfloat16 arithmetic, from the exact number of
operations.  "of bound" is the share of the rate at which memory could feed unfused layers; see
`benchmarks.bounds`.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import bounds, flax_example
from benchmarks.peers import (
    COMPILED,
    FLAX,
    RETURNED,
    Program,
    Stepper,
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
from resnet_jax.config import SGDConfig
from resnet_jax.data import Batch
from resnet_jax.models import normalization
from resnet_jax.ops.batch_norm import normalize_formula
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step

OURS, REMAT = "resnet_jax", "resnet_jax, remat"
DERIVED = "resnet_jax, JAX's gradient of BatchNorm"


def ours(images: jax.Array, labels: jax.Array, *, remat: bool, dtype: Any = "float32") -> Stepper:
    """Return the step of our trainer, without augmentation."""
    model = create_model("resnet50", remat=remat, dtype=jnp.dtype(dtype))
    optimizer = create_optimizer(SGDConfig(), lambda _: 0.1)
    step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    state = create_train_state(jax.random.key(0), model, optimizer, images.shape[1:])
    batch = Batch(images, labels, jnp.ones(len(labels), bool))
    return Stepper(step, state, batch, jax.random.key(1))


def main() -> None:
    """Measure, and print a table for each batch size."""
    options = parse_options(__doc__, batch_sizes=[16])
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
    """Return the compiled step of one row."""
    size, dtype = options.image_size, options.dtype
    images = jax.random.normal(jax.random.key(2), (batch_size, size, size, 3), dtype)
    labels = jnp.arange(batch_size) % 1000
    if name == DERIVED:
        normalization.normalize = normalize_formula
    if name in (OURS, REMAT, DERIVED, RETURNED):
        stepper = ours(images, labels, remat=name == REMAT, dtype=dtype)
    else:
        stepper = flax_example.stepper(images, labels, dtype=dtype)
    return Program(stepper, stepper.seconds, stepper.gibibytes)


def measure(options: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    """Measure one batch size, print a table, and return its numbers by row."""
    size, dtype = options.image_size, options.dtype
    names = [OURS, DERIVED, RETURNED] if options.parts else [OURS, REMAT, *flax_names()]
    results = race("train_step.py", build, names, "train", options, batch_size)
    headings, extra = COMPILED, compiled_cells(results)
    peaks = bounds.peaks(jax.devices()[0].device_kind)
    if peaks:
        headings += ("MFU", "of bound")
        model, (flops, bandwidth) = create_model("resnet50"), peaks
        needed = bounds.training_flops(model, size)
        moved = bounds.training_bytes(model, size, jnp.dtype(dtype).itemsize, bounds.UNFUSED)
        for name, result in results.items():
            result["mfu"] = result["images_per_second"] * needed / flops
            result["of_bound"] = result["images_per_second"] * moved / bandwidth
            extra[name] += (f"{result['mfu']:.1%}", f"{result['of_bound']:.1%}")
    seconds = {name: result["seconds"] for name, result in results.items()}
    rows = [*names, *torch_names(options)]
    reference = OURS if options.parts else FLAX
    print_table(rows, seconds, batch_size, reference, extra, headings)
    return results


if __name__ == "__main__":
    main()
