"""Inference with ResNet-50: images a second at batch sizes 1 and 32.

Ours with BatchNorm as it is and folded, beside Flax's ImageNet example, and beside PyTorch with
torchvision's network in channels-last memory, eager and compiled, where ``--torch-python`` names a
Python that has both.  All run in turn, one batch each a round; random images, in float32, on
accelerators in bfloat16 with float32 parameters. Medians; a first round does not count.

    python -m benchmarks.inference --torch-python /path/to/python
"""

import argparse
import statistics
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import (
    add_options,
    compiled,
    interleaved,
    print_table,
    timed,
    torch_names,
    torch_peers,
    write_json,
)
from resnet_jax import create_model
from resnet_jax.inference.folding import fold_batch_norm
from tests.weights.flax_example import FlaxExample

OURS, FOLDED, FLAX = "resnet_jax", "resnet_jax, folded", "Flax example"


def main() -> None:
    """Measures and prints a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, batch_sizes=[1, 32])
    options = parser.parse_args()
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
    example = FlaxExample((3, 4, 6, 3), bottleneck=True, dtype=dtype)
    variables = initial(model, images)
    networks = {
        OURS: (model, variables),
        FOLDED: fold_batch_norm(model, variables),
        FLAX: (example, initial(example, images)),
    }
    contenders, results = {}, {}
    for name, (network, parameters) in networks.items():
        apply = jax.jit(partial(network.apply, train=False))
        executable, seconds, gibibytes = compiled(apply, parameters, images)
        contenders[name] = timed(partial(executable, parameters, images))
        results[name] = {"compile_seconds": seconds, "peak_gibibytes": gibibytes}
    with ExitStack() as stack:
        for name, peer in torch_peers(options, "inference", batch_size).items():
            contenders[name] = stack.enter_context(peer)
            results[name] = {"first_call_seconds": peer.first_seconds}
        rounds = interleaved(options.rounds, contenders)
    for name, result in results.items():
        result["seconds"] = rounds[name]
        result["images_per_second"] = batch_size / statistics.median(rounds[name])
    extra = {
        name: (
            f"{result.get('compile_seconds', result.get('first_call_seconds')):.1f}",
            f"{result['peak_gibibytes']:.2f}" if name in networks else "not measured",
        )
        for name, result in results.items()
    }
    print_table(
        [OURS, FOLDED, FLAX, *torch_names(options)],
        rounds,
        batch_size,
        FLAX,
        extra,
        ("compile s", "peak GiB"),
    )
    return results


def initial(model: Any, images: jax.Array) -> Any:
    """Variables before any training."""
    return jax.jit(partial(model.init, train=False))(jax.random.key(1), images[:1])


if __name__ == "__main__":
    main()
