"""A training step of ResNet-50: images a second, seconds to compile, peak memory.

Beside it the same step of Flax's ImageNet example, and of PyTorch with torchvision's network in
channels-last memory, eager and compiled, where ``--torch-python`` names a Python that has both.
All run in turn, one step each a round; random images, SGD with Nesterov momentum; in float32, on
accelerators in bfloat16 with float32 parameters. Medians; a first round does not count.

On CPUs this process keeps the memory that it frees, as `train.py` does. Flax's example has a
process of its own, which is as Flax leaves it; "memory kept" is the same step in ours.

    python -m benchmarks.train_step --torch-python /path/to/python

On accelerators MFU is the share of the peak of bfloat16 arithmetic, from the exact number of
operations, and "of bound" that of the rate at which memory could feed unfused layers: see
`benchmarks.bounds`.
"""

import argparse
import statistics
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import bounds, flax_example
from benchmarks.peers import (
    FLAX,
    Stepper,
    add_options,
    flax_names,
    flax_peers,
    interleaved,
    print_table,
    timed,
    torch_names,
    torch_peers,
    write_json,
)
from resnet_jax import create_model
from resnet_jax.config import SGDConfig
from resnet_jax.data import Batch
from resnet_jax.host_memory import keep_freed_memory
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step

OURS, REMAT = "resnet_jax", "resnet_jax, remat"


def ours(images: jax.Array, labels: jax.Array, *, remat: bool, dtype: Any = "float32") -> Stepper:
    """The step of `train.py`, without augmentation."""
    model = create_model("resnet50", remat=remat, dtype=jnp.dtype(dtype))
    optimizer = make_optimizer(SGDConfig(), lambda _: 0.1)
    step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    state = create_train_state(jax.random.key(0), model, optimizer, images.shape[1:])
    batch = Batch(images, labels, jnp.ones(len(labels), bool))
    return Stepper(step, state, batch, jax.random.key(1))


def main() -> None:
    """Measures and prints a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, batch_sizes=[16])
    options = parser.parse_args()
    keep_freed_memory()
    results = {}
    for batch_size in options.batch_sizes:
        print(f"\nbatch {batch_size}, {options.dtype}\n", flush=True)
        results[batch_size] = measure(options, batch_size)
    if options.json:
        write_json(options.json, options, results)


def measure(options: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    """Prints a table; returns its numbers by name."""
    size, dtype = options.image_size, options.dtype
    images = jax.random.normal(jax.random.key(2), (batch_size, size, size, 3), dtype)
    labels = jnp.arange(batch_size) % 1000
    steppers = {
        OURS: ours(images, labels, remat=False, dtype=dtype),
        REMAT: ours(images, labels, remat=True, dtype=dtype),
        flax_names()[-1]: flax_example.stepper(images, labels, dtype=dtype),
    }
    with ExitStack() as stack:
        peers = flax_peers(options, "train", batch_size)
        peers |= torch_peers(options, "train", batch_size)
        for peer in peers.values():
            stack.enter_context(peer)
        seconds = interleaved(
            options.rounds, {name: timed(stepper) for name, stepper in steppers.items()} | peers
        )
    results = {
        name: {
            "seconds": seconds[name],
            "images_per_second": batch_size / statistics.median(seconds[name]),
            "compile_seconds": stepper.seconds,
            "peak_gibibytes": stepper.gibibytes,
        }
        for name, stepper in steppers.items()
    } | {
        name: {
            "seconds": seconds[name],
            "images_per_second": batch_size / statistics.median(seconds[name]),
            "first_step_seconds": peer.first_seconds,
        }
        for name, peer in peers.items()
    }
    headings = ("compile s", "peak GiB")
    extra = {
        name: (
            f"{result.get('compile_seconds', result.get('first_step_seconds')):.1f}",
            f"{result['peak_gibibytes']:.2f}" if name in steppers else "not measured",
        )
        for name, result in results.items()
    }
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
    rows = [OURS, REMAT, *flax_names(), *torch_names(options)]
    print_table(rows, seconds, batch_size, FLAX, extra, headings)
    return results


if __name__ == "__main__":
    main()
