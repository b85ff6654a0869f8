"""Inference with ResNet-50: images a second at batch sizes 1 and 32.

Ours with BatchNorm as it is and folded, beside Flax's ImageNet example, and beside PyTorch with
torchvision's network in channels-last memory, eager and compiled, where ``--torch-python`` names a
Python that has both.  All run in turn, one batch each a round; random images, in float32, on
accelerators in bfloat16 with float32 parameters. Medians; a first round does not count.

On CPUs this process keeps the memory that it frees (`resnet_jax.host_memory`). Flax's example has a
process of its own, which is as Flax leaves it; "memory kept" is the same program in ours.

    python -m benchmarks.inference --torch-python /path/to/python
"""

import argparse
import statistics
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import flax_example
from benchmarks.peers import (
    FLAX,
    add_options,
    compiled,
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
from resnet_jax.host_memory import keep_freed_memory
from resnet_jax.inference.folding import fold_batch_norm

OURS, FOLDED = "resnet_jax", "resnet_jax, folded"


def main() -> None:
    """Measures and prints a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, batch_sizes=[1, 32])
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
    size, dtype = options.image_size, jnp.dtype(options.dtype)
    images = jax.random.normal(jax.random.key(0), (batch_size, size, size, 3), dtype)
    model = create_model("resnet50", dtype=dtype)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(1), images[:1])
    networks = {OURS: (model, variables), FOLDED: fold_batch_norm(model, variables)}
    programs = {flax_names()[-1]: flax_example.inference(images, dtype=dtype)}
    for name, (network, parameters) in networks.items():
        apply = jax.jit(partial(network.apply, train=False))
        executable, seconds, gibibytes = compiled(apply, parameters, images)
        programs[name] = partial(executable, parameters, images), seconds, gibibytes
    contenders, results = {}, {}
    for name, (program, seconds, gibibytes) in programs.items():
        contenders[name] = timed(program)
        results[name] = {"compile_seconds": seconds, "peak_gibibytes": gibibytes}
    with ExitStack() as stack:
        peers = flax_peers(options, "inference", batch_size)
        peers |= torch_peers(options, "inference", batch_size)
        for name, peer in peers.items():
            contenders[name] = stack.enter_context(peer)
            results[name] = {"first_call_seconds": peer.first_seconds}
        rounds = interleaved(options.rounds, contenders)
    for name, result in results.items():
        result["seconds"] = rounds[name]
        result["images_per_second"] = batch_size / statistics.median(rounds[name])
    extra = {
        name: (
            f"{result.get('compile_seconds', result.get('first_call_seconds')):.1f}",
            f"{result['peak_gibibytes']:.2f}" if name in programs else "not measured",
        )
        for name, result in results.items()
    }
    print_table(
        [OURS, FOLDED, *flax_names(), *torch_names(options)],
        rounds,
        batch_size,
        FLAX,
        extra,
        ("compile s", "peak GiB"),
    )
    return results


if __name__ == "__main__":
    main()
