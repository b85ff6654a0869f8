"""The learning-rate range test: the loss while the learning rate rises.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3.
The exponential rise, the smoothed loss, the end of the test and both suggestions are those of
``lr_find`` in fastai 2 (``fastai/callback/schedule.py``), with one difference: the steepest descent
is sought before the minimum alone.  A loss that has exploded may fall again, faster than before.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from resnet_jax.config import AveragingConfig, ConfigError, RangeTestConfig, TrainConfig
from resnet_jax.report import LineChart, Series
from resnet_jax.report.charts import smoothed
from resnet_jax.training.metrics import mean_metrics
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.setup import Run, check
from resnet_jax.training.starting_weights import read_starting_weights

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

    def require_descent(self) -> None:
        """Raise `RangeTestError` unless the average loss falls somewhere."""
        _, losses = self._considered
        if len(losses) < 2 or np.argmin(losses) == 0:
            raise RangeTestError(
                f"the loss did not fall in {len(self.losses)} of {self.config.steps} steps, so no "
                f"learning rate can be suggested; lower range_test.lowest "
                f"({self.config.lowest:g}) or raise range_test.steps"
            )

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
    announce: Callable[[Run], None] | None = None,
) -> RangeTest:
    """Train for some steps with a rising learning rate, and return the loss of each step.

    Network, data, batch, loss and optimizer are those of the experiment, and so is the seed.  All
    layers that are not frozen are trained from the first step on.  Nothing is written.

    Args:
        config: The experiment. Its schedule and its averages are not used.
        range_test: How the test proceeds.
        announce: Called with the run before it is compiled.

    Raises:
        ConfigError: The experiment cannot work.
        DataError: The images cannot be read.
        RangeTestError: The loss did not fall before it grew or was not finite.
    """
    range_test = range_test or RangeTestConfig()
    run = _open(config).with_schedule(rising(range_test), range_test.steps)
    if announce is not None:
        announce(run)
    train_step, state, key = run.compile_train_step(), run.create_state(), run.step_key
    drawn = run.dataset.train.train_batches(
        config.batch_size,
        seed=config.seed,
        start_step=0,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    losses: list[float] = []
    average = np.zeros(0)
    with Prefetch(drawn, run.mesh) as batches:
        for _, batch in zip(range(range_test.steps), batches, strict=False):
            state, metrics = train_step(state, batch, key)
            loss = mean_metrics([metrics])["loss"]
            if not math.isfinite(loss):
                break
            losses.append(loss)
            average = smoothed(np.asarray(losses), range_test.smoothing)
            if average[-1] > range_test.stop_at * average.min():
                break
    rates = np.geomspace(range_test.lowest, range_test.highest, range_test.steps)[: len(losses)]
    result = RangeTest(range_test, rates, np.asarray(losses), average[: len(losses)])
    result.require_descent()
    return result


def rising(config: RangeTestConfig) -> optax.Schedule:
    """Return the learning rate, which rises exponentially, by the number of steps done."""
    growth = (config.highest / config.lowest) ** (1 / (config.steps - 1))
    return optax.exponential_decay(config.lowest, 1, growth)


def _open(config: TrainConfig) -> Run:
    # Averages would take memory and time, and are not evaluated.
    config = dataclasses.replace(config, averaging=AveragingConfig())
    try:
        model, mesh = check(config)
        weights = read_starting_weights(config.model, model) if config.model.weights else None
        return Run.open(config, model, mesh, weights)
    except (ImportError, ValueError) as error:
        raise ConfigError(str(error)) from error
