"""Measure small images and narrow networks on CPUs beside PyTorch: images per second.

Each network trains and infers with a batch of random images.  If ``--torch-python`` names a Python
with PyTorch, the same network of `benchmarks.torch_cifar` takes turns with ours: eager, in
channels-last memory.  Each contender has a process of its own, and the table shows medians.

    python -m benchmarks.small_images --torch-python /path/to/python

On a machine that does other work too, give ``--cpu-time`` and one core: ``taskset -c 0 python -m
benchmarks.small_images --cpu-time``.  The seconds are then those for which the processor has worked
for the contender, and the table shows the smallest.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import IN_A_ROW, Peer, Stepper, compiled, interleaved, serve
from resnet_jax import create_model
from resnet_jax.config import SGDConfig
from resnet_jax.data import Batch
from resnet_jax.ops.host_memory import keep_freed_memory
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step

NETWORKS = {
    "cifar_resnet20": ((28, 1), (32, 3)),
    "cifar_resnet56": ((28, 1), (32, 3)),
    "cifar_resnet8_w64": ((28, 1),),
    "wrn_16_8": ((32, 3),),
}
"""Networks, with the sizes in pixels and the numbers of channels of their images."""

MODES = ("train", "inference")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="measure the time of the processor")
    parser.add_argument("--torch-python", help="a Python with PyTorch")
    parser.add_argument("--serve", nargs=4, metavar=("MODE", "NETWORK", "SIZE", "CHANNELS"))
    options = parser.parse_args()
    if options.serve:
        keep_freed_memory()
        mode, name, *shape = options.serve
        size, channels = map(int, shape)
        images = jax.random.normal(
            jax.random.key(0), (options.batch_size, size, size, channels), jnp.float32
        )
        serve(contender(mode, name, images, cpu_time=options.cpu_time))
        return
    print("| network | images | | images/s | PyTorch eager | x PyTorch |")
    print("|---|---|---|---:|---:|---:|")
    for name in options.networks:
        for size, channels in NETWORKS[name]:
            for mode in options.modes:
                cells = measure(options, mode, name, size, channels)
                print(f"| {name} | {size}x{size}x{channels} | {mode} | {cells} |", flush=True)


def contender(mode: str, name: str, images: jax.Array, *, cpu_time: bool) -> Callable[[str], float]:
    """Return a function that returns the median seconds of some calls of our program."""
    model = create_model(name, num_classes=10, in_channels=images.shape[-1])
    optimizer = create_optimizer(SGDConfig(), lambda _: 0.1)
    state = create_train_state(jax.random.key(1), model, optimizer, images.shape[1:])
    run: Callable[[], Any]
    if mode == "train":
        step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
        labels = jnp.arange(len(images)) % 10
        batch = Batch(images, labels, jnp.ones(len(labels), bool))
        run = Stepper(step, state, batch, jax.random.key(2))
    else:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
        executable, *_ = compiled(apply, variables, images)

        def run() -> Any:
            return executable(variables, images)

    clock = time.process_time if cpu_time else time.perf_counter

    def seconds() -> float:
        started = clock()
        jax.block_until_ready(run())
        return clock() - started

    def answer(_: str = "") -> float:
        seconds()
        return statistics.median(seconds() for _ in range(IN_A_ROW))

    return answer


def measure(options: argparse.Namespace, mode: str, name: str, size: int, channels: int) -> str:
    """Return the last cells of a row: both speeds, and their ratio."""
    flags = [f"--batch-size={options.batch_size}", *["--cpu-time"] * options.cpu_time]
    with ExitStack() as stack:
        served = ("--serve", mode, name, str(size), str(channels))
        peers = {"ours": Peer(sys.executable, "small_images.py", *flags, *served)}
        if options.torch_python:
            shape = (f"--image-size={size}", f"--channels={channels}")
            peers["torch"] = Peer(
                options.torch_python, "torch_cifar.py", mode, name, *flags, *shape
            )
        for peer in peers.values():
            stack.enter_context(peer)
        rounds = interleaved(options.rounds, dict(peers))
    typical = min if options.cpu_time else statistics.median
    speeds = {key: options.batch_size / typical(seconds) for key, seconds in rounds.items()}
    if "torch" not in speeds:
        return f"{speeds['ours']:.0f} | not measured | not measured"
    return f"{speeds['ours']:.0f} | {speeds['torch']:.0f} | {speeds['ours'] / speeds['torch']:.2f}"


if __name__ == "__main__":
    main()
