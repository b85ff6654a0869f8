"""The model of a pod."""

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.pod import INPUTS, plan, slowest
from benchmarks.scaling import CLUSTERS

CLUSTER = CLUSTERS["H100, NVSwitch, InfiniBand 400 Gb/s a GPU"]


def test_the_slowest_of_two_devices_is_that_of_the_theory() -> None:
    # The mean of the larger of two standard normal numbers is 1 / sqrt(pi).
    expected = 1 + 0.1 / math.sqrt(math.pi)
    assert slowest(2, 0.1, steps=200_000) == pytest.approx(expected, abs=1e-3)
    assert slowest(1, 0.1, steps=200_000) == pytest.approx(1, abs=1e-3)


def test_without_losses_devices_add_up() -> None:
    ideal = dataclasses.replace(
        INPUTS, gradient_bytes=0, save_seconds=0.0, variation=0.0, failure_hours=math.inf
    )
    cluster = dataclasses.replace(CLUSTER, launch=0.0, links=())
    found = plan(cluster, 64, 8, ideal)
    assert found.images_per_second == 64 * cluster.images_per_second
    assert found.host_images == 8 * cluster.images_per_second
    assert found.host_cores == pytest.approx(found.host_images / INPUTS.images_per_core)


def test_losses_multiply_and_failures_follow_the_number_of_devices() -> None:
    few, many = (plan(CLUSTER, devices, 8) for devices in (64, 1024))
    for found, devices in ((few, 64), (many, 1024)):
        losses = [found.exchange, found.stragglers, found.checkpoints, found.failures]
        speed = devices * CLUSTER.images_per_second * np.prod([1 - loss for loss in losses])
        assert found.images_per_second == pytest.approx(speed)
    # The time between failures is 16 times shorter, and each costs as much.
    odds = [found.failures / (1 - found.failures) for found in (few, many)]
    assert odds[1] == pytest.approx(16 * odds[0])
