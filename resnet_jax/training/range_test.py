"""The learning-rate range test: the loss while the learning rate rises.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3.
The exponential rise, the smoothed loss, the end of the test and both suggestions are those of
``lr_find`` in fastai 2 (``fastai/callback/schedule.py``), with one difference: the steepest descent
is sought before the minimum alone.  A loss that has exploded may fall again, faster than before.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax

from resnet_jax.config import AveragingConfig, RangeTestConfig, TrainConfig
from resnet_jax.report import LineChart, Series
from resnet_jax.report.charts import smoothed
from resnet_jax.training.metrics import mean_metrics
from resnet_jax.training.opening import open_run
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.setup import Run

# The loss of the first steps is that of the initial network, and the last ones diverge.
_LEFT_OUT_SHARE, _LEFT_OUT_LAST = 10, 5


class RangeTestError(Exception):
    """Raised when the losses of a range test suggest no learning rate."""


@dataclasses.dataclass(frozen=True, eq=False)
class RangeTest:
    """The outcome of a learning-rate range test of N steps.

    Attributes:
        config: How the test proceeded.
        learning_rates: float64[N], rising. They are peaks of the schedule, after any scaling by the
            batch size.
        losses: float64[N], mean loss of the batch of each step, in nats.
        smoothed: float64[N], their average without the bias of its start.
    """

    config: RangeTestConfig
    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @property
    def steepest(self) -> float:
        """Learning rate where the average loss falls fastest, by the logarithm of the rate."""
        rates, losses = self._considered
        # The rates rise exponentially, so the slopes are proportional to the differences.
        return float(rates[np.argmin(np.diff(losses[: np.argmin(losses) + 1]))])

    @property
    def tenth_of_minimum(self) -> float:
        """A tenth of the learning rate where the average loss is lowest."""
        rates, losses = self._considered
        return float(rates[np.argmin(losses)]) / 10

    @property
    def ended_early(self) -> bool:
        """Whether the loss grew so much that the test ended before its last step."""
        return len(self.learning_rates) < self.config.steps

    @property
    def _considered(self) -> tuple[np.ndarray, np.ndarray]:
        chosen = slice(self.config.steps // _LEFT_OUT_SHARE, -_LEFT_OUT_LAST)
        return self.learning_rates[chosen], self.smoothed[chosen]

    def chart(self) -> LineChart:
        """Return the average loss by learning rate, with both suggestions."""

        def mark(name: str, rate: float) -> Series:
            loss = np.interp(np.log(rate), np.log(self.learning_rates), self.smoothed)
            return Series(name, [rate], [float(loss)])

        return LineChart(
            "Smoothed loss (nats)",
            "learning rate",
            [
                Series("loss", self.learning_rates.tolist(), self.smoothed.tolist()),
                mark("steepest descent", self.steepest),
                mark("a tenth of the minimum", self.tenth_of_minimum),
            ],
            log_x=True,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {
            "steepest": self.steepest,
            "tenth_of_minimum": self.tenth_of_minimum,
            "ended_early": self.ended_early,
            "range_test": dataclasses.asdict(self.config),
            "learning_rates": self.learning_rates.tolist(),
            "losses": self.losses.tolist(),
            "smoothed": self.smoothed.tolist(),
        }


def learning_rate_range_test(
    config: TrainConfig,
    range_test: RangeTestConfig | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
    announce: Callable[[Run], None] | None = None,
) -> RangeTest:
    """Train for some steps with a rising learning rate, and return the loss of each step.

    Network, data, batch, loss and optimizer are those of the experiment, and so is the seed.  All
    layers that are not frozen are trained from the first step on.  Nothing is written.

    Args:
        config: The experiment. Its schedule and its averages are not used.
        range_test: How the test proceeds.
        devices: Devices to train on; by default all.
        announce: Called with the run before it is compiled.

    Raises:
        ConfigError: The experiment cannot work.
        DataError: The images cannot be read.
        RangeTestError: The loss did not fall before it grew or was not finite.
    """
    range_test = range_test or RangeTestConfig()
    # Averages would take memory and time, and are not evaluated.
    config = dataclasses.replace(config, averaging=AveragingConfig())
    run = open_run(config, read_weights=True, devices=devices)
    run = run.with_schedule(rising(range_test), range_test.steps)
    if announce is not None:
        announce(run)
    return outcome_of(_losses(run), range_test)


def outcome_of(losses: Iterable[float], config: RangeTestConfig) -> RangeTest:
    """Return the outcome of a range test.

    Args:
        losses: Loss of each step. No more are drawn after the test has ended.
        config: How the test proceeds.

    Raises:
        RangeTestError: The loss did not fall before it grew or was not finite.
    """
    found: list[float] = []
    average = np.zeros(0)
    for loss in losses:
        if not math.isfinite(loss):
            break
        found.append(loss)
        average = smoothed(np.asarray(found), config.smoothing)
        if average[-1] > config.stop_at * average.min():
            break
    rates = np.geomspace(config.lowest, config.highest, config.steps)[: len(found)]
    outcome = RangeTest(config, rates, np.asarray(found), average)
    _, considered = outcome._considered
    if len(considered) < 2 or np.argmin(considered) == 0:
        raise RangeTestError(
            f"the loss did not fall in {len(found)} of {config.steps} steps, so no learning rate "
            f"can be suggested; lower range_test.lowest ({config.lowest:g}) or raise "
            "range_test.steps"
        )
    return outcome


def _losses(run: Run) -> Iterator[float]:
    """Train, and yield the mean loss of the batch of each step."""
    train_step, state, key = run.compile_train_step(), run.create_state(), run.step_key
    with Prefetch(run.first_batches(), run.mesh) as batches:
        for _ in range(run.total_steps):
            state, metrics = train_step(state, next(batches), key)
            yield mean_metrics([metrics])["loss"]


def rising(config: RangeTestConfig) -> optax.Schedule:
    """Return the learning rate, which rises exponentially, by the number of steps done."""
    growth = (config.highest / config.lowest) ** (1 / (config.steps - 1))
    return optax.exponential_decay(config.lowest, 1, growth)
