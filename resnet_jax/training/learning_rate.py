"""The learning rate of a run as a curve."""

import jax
import numpy as np

from resnet_jax.report import Series
from resnet_jax.training.setup import Run

# More points cannot be told apart in a chart.
_MAX_POINTS = 1000


def learning_rate_curve(run: Run, steps: int | None = None) -> Series:
    """Return the learning rate of the steps of a run, from its schedule.

    Args:
        run: The run.
        steps: Number of steps from its beginning. By default all of them.

    Returns:
        Steps, the first of which is 1, and their learning rates. At most 1000 of a long run.
    """
    total = run.total_steps if steps is None else steps
    done = np.unique(np.linspace(0, total - 1, min(total, _MAX_POINTS)).round().astype(int))
    rates = np.broadcast_to(np.asarray(jax.jit(run.schedule)(done), np.float64), done.shape)
    return Series("schedule", (done + 1).tolist(), rates.tolist())
