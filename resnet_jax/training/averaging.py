"""Averages of parameters and running statistics over the steps of a run."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_jax.config import AveragingConfig
from resnet_jax.training.phases import Phases
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Gradients, Update

AveragingWeight = Callable[[jax.Array], jax.Array | float]
"""From the number of steps done before to the weight, 0 to 1, with which the state after the next
step enters the averages."""


class Timeline(NamedTuple):
    """How the steps of a run are divided into epochs.

    An epoch ends with the step that completes it, after which the run may be evaluated.

    Attributes:
        phases: The batch sizes of the steps.
        total_steps: Number of steps of the run.
        epochs: Number of epochs of the run.
    """

    phases: Phases
    total_steps: int
    epochs: float

    @property
    def batch_size(self) -> int:
        """Number of examples of the first step."""
        return self.phases.phases[0].batch_size

    @property
    def steps_per_epoch(self) -> float:
        """Number of steps of an epoch of such steps, not always a whole number."""
        return self.phases.num_examples / self.batch_size

    def end_of(self, epochs: float) -> int:
        """Return the number of steps after which a number of epochs is complete."""
        return min(self.total_steps, self.phases.end_of(epochs))

    @property
    def epoch_ends(self) -> list[int]:
        """Numbers of steps after which an epoch is complete, and that of the whole run."""
        ends = [self.end_of(epoch) for epoch in range(1, math.ceil(self.epochs) + 1)]
        return sorted({*ends, self.total_steps})


def averaged(update: Update, config: AveragingConfig, timeline: Timeline) -> Update:
    """Return an update that also updates the averages of the state.

    Args:
        update: An update.
        config: The averages, which must be enabled.
        timeline: The epochs of the run.
    """
    weight = create_averaging_weight(config, timeline)

    def averaged_update(state: TrainState, gradients: Gradients) -> TrainState:
        state = update(state, gradients)
        share = weight(state.step - 1)

        def average() -> Any:
            if config.statistics == "averaged":
                return optax.incremental_update(state.variables, state.ema, share)
            params = optax.incremental_update(state.params, state.ema["params"], share)
            return {"params": params, "batch_stats": state.batch_stats}

        if config.every_steps == 1:
            return dataclasses.replace(state, ema=average())
        return dataclasses.replace(state, ema=jax.lax.cond(share > 0, average, lambda: state.ema))

    return averaged_update


def create_averaging_weight(config: AveragingConfig, timeline: Timeline) -> AveragingWeight:
    """Return the weights of the states that a configuration describes.

    The rules, where t is the number of steps done since ``start_epoch``:

    - A constant decay starts from the initial parameters.
    - TensorFlow's warm-up (``ExponentialMovingAverage`` with ``num_updates``) keeps at most
      (1 + t) / (10 + t).  It forgets the initial parameters, which a constant decay of 0.9999
      keeps for tens of thousands of steps.
    - timm's (``ModelEmaV3`` with ``use_warmup``) copies the parameters in the first step and keeps
      at most 1 - (1 + t / gamma)^(-2/3) after step 1 + t.
    - torchvision's (``ExponentialMovingAverage`` in its references/classification) gives each
      update the weight (1 - decay) * batch_size * every_steps / epochs, at most 1.  It updates in
      the first step of each epoch and every ``every_steps`` steps after it.  Until the epoch
      ``start_epoch``, and in its first update, the parameters are copied.
    - Composer's half-life (``EMA``) begins with a copy of the parameters after the first step.
    - Equal weights are those of Izmailov et al. 2018 (https://arxiv.org/abs/1803.05407): the n-th
      state has the weight 1 / n.

    Args:
        config: The averages, which must be enabled.
        timeline: The epochs of the run.
    """
    start = timeline.end_of(config.start_epoch)
    updates = _count_updates(config, timeline)

    def due(step: jax.Array) -> jax.Array:
        return updates(step + 1) > updates(step)

    if config.equal_weights:
        # An update in the step at which the averages begin counts.
        before = int(updates(max(start, 1) - 1))

        def equal_weight(step: jax.Array) -> jax.Array:
            count = updates(step + 1) - before
            return jnp.where(count < 1, 1.0, jnp.where(due(step), 1.0 / jnp.maximum(count, 1), 0.0))

        return equal_weight

    interval = timeline.steps_per_epoch if config.every_steps == "epoch" else config.every_steps
    if config.warmup == "torchvision":
        constant = min(1.0, (1 - config.decay) * timeline.batch_size * interval / timeline.epochs)
        start = timeline.end_of(math.ceil(config.start_epoch))

        def torchvision_weight(step: jax.Array) -> jax.Array:
            return jnp.where(due(step), jnp.where(step <= start, 1.0, constant), 0.0)

        return torchvision_weight

    decay = config.decay or 2 ** (-interval / config.half_life_steps)
    # Number of steps at the beginning after which the averages are copies.
    copies = start + 1 if config.warmup == "timm" else max(start, int(config.half_life_steps > 0))

    def weight(step: jax.Array) -> jax.Array | float:
        new: jax.Array | float = 1 - decay
        if config.warmup == "tensorflow":
            since = step - start if start else step
            new = 1 - jnp.minimum(decay, (1 + since) / (10 + since))
        elif config.warmup == "timm":
            since = jnp.maximum(step - start, 0)
            new = jnp.maximum(1 - decay, (1 + since / config.warmup_gamma) ** (-2 / 3))
        if config.every_steps != 1:
            new = jnp.where(due(step), new, 0.0)
        return jnp.where(step < copies, 1.0, new) if copies else new

    return weight


def _count_updates(config: AveragingConfig, timeline: Timeline) -> Callable[[Any], Any]:
    """Return a function from the number of steps done to the number of updates of the averages."""
    every = config.every_steps
    if every == "epoch":
        ends = np.asarray(timeline.epoch_ends)
        return lambda done: jnp.searchsorted(ends, done, side="right")
    if config.warmup != "torchvision" or every == 1:
        return lambda done: done // every
    # An update follows the first step of each epoch, and every `every` steps after it.
    starts = [0, *timeline.epoch_ends[:-1]]
    spans = zip(starts, timeline.epoch_ends, strict=True)
    updates = np.asarray([step + 1 for first, end in spans for step in range(first, end, every)])
    return lambda done: jnp.searchsorted(updates, done, side="right")
