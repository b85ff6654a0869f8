"""Combinations of numbers of devices and batch sizes that the suite does not test.

Run it with ``pytest -n 0 tests/nightly/device_counts.py``.
"""

import numpy as np
import pytest

from resnet_jax.config import TrainConfig
from resnet_jax.data import ArraySplit
from resnet_jax.training.setup import Run
from resnet_jax.training.state import TrainState
from tests.training import test_evaluation
from tests.training.conftest import small_config as small_config
from tests.training.test_device_count import Outcome, assert_same, five_steps
from tests.training.test_device_count import config as config
from tests.training.test_device_count import one_device as one_device
from tests.training.test_evaluation import reference as reference
from tests.training.test_evaluation import run as run
from tests.training.test_evaluation import split as split
from tests.training.test_evaluation import state as state


@pytest.mark.parametrize("num_devices", [2, 4])
def test_the_number_of_devices_changes_nothing(
    config: TrainConfig, one_device: Outcome, num_devices: int
) -> None:
    assert_same(five_steps(config, num_devices), one_device)


@pytest.mark.parametrize(("batch_size", "num_devices"), [(8, 1), (16, 4), (64, 8)])
def test_any_batch_size_on_any_devices_gives_the_same(
    run: Run,
    state: TrainState,
    split: ArraySplit,
    reference: tuple[dict[str, float], np.ndarray],
    batch_size: int,
    num_devices: int,
) -> None:
    test_evaluation.test_any_batch_size_on_any_devices_gives_the_same(
        run, state, split, reference, batch_size, num_devices
    )
