"""Inference with ResNet-50: images a second at batch sizes 1 and 32.

Ours with BatchNorm as it is and folded, beside Flax's ImageNet example, and beside PyTorch with
torchvision's network in channels-last memory, eager and compiled, where ``--torch-python`` names a
Python that has both.  All run in turn, one batch each a round; float32 and random images.

    python -m benchmarks.inference --torch-python /path/to/python
"""

import argparse
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax

from benchmarks.peers import Peer, compiled, interleaved, print_table, timed
from resnet_jax import create_model
from resnet_jax.inference.folding import fold_batch_norm
from tests.weights.flax_example import FlaxExample

OURS, FOLDED, FLAX = "resnet_jax", "resnet_jax, folded", "Flax example"
TORCH = "torch_resnet50.py"
EAGER, COMPILED = "PyTorch eager", "torch.compile"


def main() -> None:
    """Measures and prints a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--torch-python", help="a Python with PyTorch and torchvision")
    options = parser.parse_args()

    size = options.image_size
    for batch_size in options.batch_sizes:
        images = jax.random.normal(jax.random.key(0), (batch_size, size, size, 3))
        model, example = create_model("resnet50"), FlaxExample((3, 4, 6, 3), bottleneck=True)
        variables = initial(model, images)
        networks = {
            OURS: (model, variables),
            FOLDED: fold_batch_norm(model, variables),
            FLAX: (example, initial(example, images)),
        }
        contenders, extra = {}, {}
        for name, (network, parameters) in networks.items():
            apply = jax.jit(partial(network.apply, train=False))
            executable, seconds, gibibytes = compiled(apply, parameters, images)
            contenders[name] = timed(partial(executable, parameters, images))
            extra[name] = (f"{seconds:.1f}", f"{gibibytes:.2f}")
        with ExitStack() as stack:
            if options.torch_python:
                arguments = ("--batch-size", str(batch_size), "--image-size", str(size))
                for name, flags in ((EAGER, ()), (COMPILED, ("--compile",))):
                    peer = Peer(options.torch_python, TORCH, "inference", *arguments, *flags)
                    contenders[name] = stack.enter_context(peer)
                    extra[name] = (f"{peer.first_seconds:.1f}", "not measured")
            rounds = interleaved(options.rounds, contenders)
        print(f"\nbatch {batch_size}\n")
        print_table(
            [OURS, FOLDED, FLAX, EAGER, COMPILED],
            rounds,
            batch_size,
            FLAX,
            extra,
            ("compile s", "peak GiB"),
        )


def initial(model: Any, images: jax.Array) -> Any:
    """Variables before any training."""
    return jax.jit(partial(model.init, train=False))(jax.random.key(1), images[:1])


if __name__ == "__main__":
    main()
