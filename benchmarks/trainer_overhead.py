"""Measure what the training loop costs in addition to the jitted step that it calls.

The same compiled step runs on the same synthetic images in two ways, which take turns: repeatedly
on one batch on the device, and in the loop, which draws batches, collects and writes metrics and
shows progress.  A round ends when the loop has fetched the metrics of its last step.

    python -m benchmarks.trainer_overhead
"""

import argparse
import dataclasses
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks.peers import interleaved
from resnet_jax.config import (
    CheckpointConfig,
    CosineConfig,
    ModelConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.ops.host_memory import keep_freed_memory
from resnet_jax.training.loop import train
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.process.goodput import Goodput
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run

LOOP, BARE = "loop of the trainer", "bare jitted step"


@dataclasses.dataclass(frozen=True, eq=False)
class TimedRun(Run):
    """A run with compiled steps that records when each training step is called."""

    steps: tuple[Any, Any] = (None, None)
    called: list[float] = dataclasses.field(default_factory=list)

    def compile(self) -> Any:
        """Return the compiled steps."""
        train_step, eval_step = self.steps

        def noted(*inputs: Any) -> Any:
            self.called.append(time.perf_counter())
            return train_step(*inputs)

        return noted, eval_step


def main() -> None:
    """Measure, and print a table with the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--log-every-steps", type=int, default=10)
    parser.add_argument(
        "--steps",
        type=int,
        default=30,
        help="per round, in multiples of --log-every-steps",
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # As the `train` command does.
    keep_freed_memory()

    # One more step, whose call ends the last interval.
    steps = options.steps + 1
    examples = steps * options.batch_size
    config = TrainConfig(
        model=ModelConfig(options.model),
        data=SyntheticConfig(image_size=options.image_size, train_examples=examples),
        schedule=CosineConfig(warmup_epochs=0.0),
        checkpoint=CheckpointConfig(every_steps=10 * steps),
        batch_size=options.batch_size,
        epochs=1,
        log_every_steps=options.log_every_steps,
    )
    plain = Run.create(config)
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(Run)}
    run = TimedRun(**fields, steps=plain.compile())

    def loop() -> float:
        run.called.clear()
        with tempfile.TemporaryDirectory() as path, Workdir(Path(path), config) as workdir:
            train(run, workdir, Console(file=io.StringIO()), goodput=Goodput())
        return run.called[-1] - run.called[0]

    def bare() -> float:
        state, key = run.create_state(), run.step_key
        batches = run.dataset.train.train_batches(config.batch_size, seed=0, start_step=0)
        with Prefetch(batches, run.mesh) as drawn:
            batch = next(drawn)
        jax.block_until_ready((state, batch))
        started = time.perf_counter()
        for _ in range(options.steps):
            state, metrics = run.steps[0](state, batch, key)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - started

    seconds = interleaved(options.rounds, {LOOP: loop, BARE: bare})
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    print("| | ms per step | min - max | x bare |\n|---|---:|---:|---:|")
    for name, taken in seconds.items():
        each = [1000 * value / options.steps for value in (medians[name], min(taken), max(taken))]
        ratio = medians[name] / medians[BARE]
        print(f"| {name} | {each[0]:.2f} | {each[1]:.2f} - {each[2]:.2f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
