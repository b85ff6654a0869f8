"""Measure how long a checkpoint delays training, compared with a training step.

    python benchmarks/checkpoint_stall.py

For ResNet-50 at 224 pixels, batch 32, SGD with momentum, in float32, it measures the time of a step
and the time for which `Checkpoints.save` blocks.  The latter includes the digests of all arrays;
the write itself continues in the background.  Each save starts after the previous one has ended.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax

from resnet_jax.config import (
    CheckpointConfig,
    CosineConfig,
    ModelConfig,
    SGDConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.setup import Run
from resnet_jax.weights.formats.digests import describe_arrays

CONFIG = TrainConfig(
    model=ModelConfig("resnet50"),
    data=SyntheticConfig(),
    optimizer=SGDConfig(learning_rate=0.1),
    schedule=CosineConfig(warmup_epochs=0.0),
    batch_size=32,
)


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5, help="steps to measure, after two more")
    parser.add_argument("--saves", type=int, default=5, help="saves to measure")
    arguments = parser.parse_args()

    run = Run.create(CONFIG)
    train_step, _ = run.compile()
    state, key = run.create_state(), run.step_key
    drawn = run.dataset.train.train_batches(CONFIG.batch_size, seed=0, start_step=0)
    steps, digests, stalls, totals = [], [], [], []
    with Prefetch(drawn, run.mesh) as batches:
        for step in range(arguments.steps + 2):
            started = time.perf_counter()
            state, _ = jax.block_until_ready(train_step(state, next(batches), key))
            if step >= 2:
                steps.append(time.perf_counter() - started)
        config = CheckpointConfig(keep_latest=1, keep_best=0)
        for _ in range(arguments.saves):
            state, _ = jax.block_until_ready(train_step(state, next(batches), key))
            started = time.perf_counter()
            describe_arrays(state)
            digests.append(time.perf_counter() - started)
            state, _ = jax.block_until_ready(train_step(state, next(batches), key))
            with tempfile.TemporaryDirectory() as directory:
                with Checkpoints(Path(directory), config) as checkpoints:
                    started = time.perf_counter()
                    checkpoints.save(state, badness=0.0, metadata={})
                    stalls.append(time.perf_counter() - started)
                totals.append(time.perf_counter() - started)

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    print(
        f"jax {jax.__version__}, {len(run.mesh.devices)} x {run.mesh.devices[0].device_kind}, "
        f"{os.cpu_count()} cores"
    )
    print(f"{CONFIG.model.name}, batch {CONFIG.batch_size}, state {size / 1e6:.0f} MB")
    for name, seconds in (
        ("step", steps),
        ("digests alone", digests),
        ("save blocks", stalls),
        ("save until on disk", totals),
    ):
        print(
            f"{name:20s} median {statistics.median(seconds):6.3f} s, "
            f"{min(seconds):.3f} to {max(seconds):.3f} s"
        )
    delay = statistics.median(stalls) / statistics.median(steps)
    print(f"a save delays training by {delay:.2f} steps")


if __name__ == "__main__":
    main()
