"""The metrics of a run, collected step by step and recorded from time to time."""

import time

import jax

from resnet_jax.training.metrics import Metrics
from resnet_jax.training.rundir.console import ProgressLine
from resnet_jax.training.rundir.metric_log import MetricWriter
from resnet_jax.training.setup import Run


class Records:
    """Collects the metrics of steps and writes their means to files and to the screen.

    Args:
        run: The run.
        writer: The files.
        progress: The screen.
    """

    def __init__(self, run: Run, writer: MetricWriter, progress: ProgressLine) -> None:
        self._run, self._writer, self._progress = run, writer, progress
        self._pending: list[Metrics] = []
        self._clock = time.perf_counter()
        # Without `jax.jit`, each operation of the schedule would be compiled separately.
        self._learning_rate = jax.jit(run.schedule)

    def add(self, metrics: Metrics) -> None:
        """Collect the metrics of a step; they stay on the devices."""
        self._pending.append(metrics)

    def fetch(self) -> list[Metrics]:
        """Return the metrics collected since the last record; waits for the devices."""
        return jax.device_get(self._pending)

    def train(self, step: int, means: dict[str, float]) -> dict[str, float]:
        """Record the means of the metrics that were collected up to a step, and forget these.

        Args:
            step: Number of steps done.
            means: ``loss``, ``top1`` and ``top5``, unless no loss is finite, and other facts.

        Returns:
            The record: the means, ``learning_rate`` and ``images_per_second``.
        """
        run = self._run
        seconds, steps = time.perf_counter() - self._clock, len(self._pending)
        self._pending.clear()
        images = run.phases.examples(step) - run.phases.examples(step - steps)
        values = means | {
            "learning_rate": float(jax.device_get(self._learning_rate(step - 1))),
            "images_per_second": images / seconds,
        }
        self._writer.write(step, run.epochs_done(step), "train", values)
        remaining = run.total_steps - step
        self._progress.train(step, values, eta_seconds=seconds / steps * remaining)
        return values

    def evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Record an evaluation after a step."""
        split = self._run.dataset.evaluation_split
        self._writer.write(step, self._run.epochs_done(step), split, metrics)
        self._progress.evaluation(step, split, metrics)

    def exclude(self, seconds: float) -> None:
        """Leave a time since the last record out of the throughput."""
        self._clock += seconds

    def restart_clock(self) -> None:
        """Measure the throughput of the next steps from now on."""
        self._clock = time.perf_counter()
