"""Measure the seconds until a training step is ready: tracing, lowering and compiling it.

It compares networks unrolled and with ``scan=True``, and the ImageNet networks of Flax's example.
Each measurement runs in a process of its own.  The first of a round has an empty compilation cache
on disk, and the second finds the programs that the first has left there.  All contenders take
turns, and the table shows medians over the rounds.  The sizes of images and batch hardly matter, so
they are small.

    python -m benchmarks.compile_time
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import flax_example
from benchmarks.peers import FLAX
from resnet_jax import create_model
from resnet_jax.config import SGDConfig
from resnet_jax.data import Batch
from resnet_jax.ops import platform
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step
from tests.weights.flax_example import FlaxExample

UNROLLED, SCANNED = "unrolled", "scanned"
WAYS = [UNROLLED, SCANNED, FLAX]
PHASES = ["trace", "lower", "compile"]


def program(name: str, way: str, shape: tuple[int, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Return a training step and its arguments, as shapes and dtypes."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    key = jax.random.key(0)
    if way == FLAX:
        example = FlaxExample(flax_example.STAGES[name], bottleneck=True)
        sgd = optax.sgd(0.1, momentum=0.9, nesterov=True)
        variables = jax.eval_shape(partial(example.init, train=False), key, images)
        params = variables["params"]
        state = params, variables["batch_stats"], jax.eval_shape(sgd.init, params)
        return flax_example.train_step(example, sgd), (state, images, labels)
    model = create_model(name, scan=way != UNROLLED)
    optimizer = create_optimizer(SGDConfig(), lambda _: 0.1)
    step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    create = partial(create_train_state, model=model, optimizer=optimizer, image_shape=shape[1:])
    batch = Batch(images, labels, jax.ShapeDtypeStruct(shape[:1], jnp.bool_))
    return step, (jax.eval_shape(create, key), batch, key)


def measure(name: str, way: str, shape: tuple[int, ...]) -> dict[str, float]:
    """Return the seconds of each phase, measured in this process."""
    step, inputs = program(name, way, shape)
    jitted = jax.jit(step, donate_argnums=0)
    times = [time.perf_counter()]
    # As the trainer does.
    with platform.devices(1, jax.default_backend()):
        traced = jitted.trace(*inputs)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    lowered.compile()
    times.append(time.perf_counter())
    durations = [end - start for start, end in itertools.pairwise(times)]
    return dict(zip(PHASES, durations, strict=True))


def measure_apart(arguments: list[str], cache: str) -> dict[str, float]:
    """Return the seconds of each phase, measured in a process of its own."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "benchmarks.compile_time", *arguments]
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output)


def main() -> None:
    """Measure, and print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--networks", nargs="+", default=["resnet50", "resnet152", "cifar_resnet110"]
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--here",
        action="store_true",
        help="print one measurement as JSON",
    )
    options = parser.parse_args()
    if options.here:
        shape = (options.batch_size, options.image_size, options.image_size, 3)
        print(json.dumps(measure(options.networks[0], options.ways[0], shape)))
        return

    sizes = [f"--image-size={options.image_size}", f"--batch-size={options.batch_size}", "--here"]
    for name in options.networks:
        ways = [way for way in options.ways if way != FLAX or name in flax_example.STAGES]
        cold: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        warm: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way in ways:
                arguments = ["--networks", name, "--ways", way, *sizes]
                with tempfile.TemporaryDirectory() as cache:
                    cold[way].append(measure_apart(arguments, cache))
                    warm[way].append(measure_apart(arguments, cache))
        print_table(name, cold, warm)


def print_table(
    name: str, cold: dict[str, list[dict[str, float]]], warm: dict[str, list[dict[str, float]]]
) -> None:
    """Print a Markdown table of seconds: each phase, their sum, its range, and ratios."""
    totals = {way: [sum(seconds.values()) for seconds in rounds] for way, rounds in cold.items()}
    peers = [way for way in (UNROLLED, FLAX) if way in cold]
    headings = [*PHASES, "total", "min - max", *(f"x {peer}" for peer in peers), "cached total"]
    print("| " + " | ".join([name, *headings]) + " |")
    print("|---" + "|---:" * len(headings) + "|")
    for way, rounds in cold.items():
        total = statistics.median(totals[way])
        cells = [
            f"{statistics.median(seconds[phase] for seconds in rounds):.2f}" for phase in PHASES
        ]
        cells += [f"{total:.1f}", f"{min(totals[way]):.1f} - {max(totals[way]):.1f}"]
        cells += [f"{total / statistics.median(totals[peer]):.2f}" for peer in peers]
        cells += [f"{statistics.median(sum(seconds.values()) for seconds in warm[way]):.1f}"]
        print("| " + " | ".join([way, *cells]) + " |", flush=True)
    print()


if __name__ == "__main__":
    main()
