"""Latency and throughput of several networks, measured in turns."""

import dataclasses
import platform
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from resnet_jax.data.images.cores import usable_cores
from resnet_jax.export.runners import Runner

_FEWEST_CALLS = 3


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long a network takes for a batch.

    Attributes:
        name: What the user named.
        kind: Format of the network.
        batch: Number of images.
        image_shape: Height, width and channels of the images.
        size: Size of the file in bytes.
        first: Wall time of the first call in seconds, with compilation.
        latencies: Wall time of each later call in seconds, in order.
    """

    name: str
    kind: str
    batch: int
    image_shape: tuple[int, int, int]
    size: int
    first: float
    latencies: tuple[float, ...]

    def percentile(self, q: float) -> float:
        """Return a percentile of the latencies in seconds, where q is 0 to 100."""
        return float(np.percentile(self.latencies, q))

    @property
    def images_per_second(self) -> float:
        """Number of images divided by the time of all calls but the first."""
        return self.batch * len(self.latencies) / sum(self.latencies)

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the measures as JSON values."""
        return dataclasses.asdict(self) | {
            "p50": self.percentile(50),
            "p90": self.percentile(90),
            "p99": self.percentile(99),
            "images_per_second": self.images_per_second,
        }


def time_side_by_side(runners: Sequence[Runner], batch: int, *, seconds: float) -> list[Timing]:
    """Return the timings of networks for one batch size.

    The networks are called in turns, so that a change of the machine's load or clock is seen by all
    of them. Every other round is in the opposite order.

    Args:
        runners: The networks.
        batch: Number of images.
        seconds: Time for all calls after the first ones. Each network is called at least three
            times.
    """
    rng = np.random.default_rng(0)
    inputs = [_noise(rng, runner, batch) for runner in runners]
    latencies: list[list[float]] = [[] for _ in runners]
    first = [_timed(runner, images) for runner, images in zip(runners, inputs, strict=True)]
    end = time.perf_counter() + seconds
    turn = 0
    while runners and (turn < _FEWEST_CALLS or time.perf_counter() < end):
        order = range(len(runners))
        for i in order if turn % 2 == 0 else reversed(order):
            latencies[i].append(_timed(runners[i], inputs[i]))
        turn += 1
    return [
        Timing(
            name=runner.name,
            kind=runner.kind,
            batch=batch,
            image_shape=runner.image_shape,
            size=runner.size,
            first=first[i],
            latencies=tuple(latencies[i]),
        )
        for i, runner in enumerate(runners)
    ]


def _noise(rng: np.random.Generator, runner: Runner, batch: int) -> np.ndarray:
    shape = (batch, *runner.image_shape)
    if runner.input_dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape, np.float32)


def _timed(runner: Runner, images: np.ndarray) -> float:
    started = time.perf_counter()
    runner.run(images)
    return time.perf_counter() - started


def machine() -> dict[str, str]:
    """Return what the timings depend on: devices, number of usable cores, and versions."""
    return {
        "device": jax.devices()[0].device_kind,
        "processor": platform.machine(),
        "cores": str(usable_cores()),
        "jax": jax.__version__,
    }
