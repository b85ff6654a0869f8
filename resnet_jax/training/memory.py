"""The memory that a training step needs, the memory that there is, and the batch that fits."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from resnet_jax.config import ConfigError
from resnet_jax.training.setup import Run

SHARE = 0.8
"""Share of the available memory that a step may take. The rest is for the batches that are loaded
ahead, the evaluation and the allocator."""

_CGROUP = Path("/sys/fs/cgroup")


class BatchFit(NamedTuple):
    """A batch size with the memory that its step needs.

    Attributes:
        batch_size: Number of images in the global batch.
        needed: Bytes that the step needs on one device or, on CPUs, on all devices together.
        available: Bytes that are available there.
        analyses: The needed bytes of every batch size whose step was compiled, largest first.
    """

    batch_size: int
    needed: int
    available: int
    analyses: dict[int, int]

    @property
    def fits(self) -> bool:
        """Whether the step needs at most `SHARE` of the available memory."""
        return self.needed <= SHARE * self.available


def batch_sizes(devices: int, *, largest: int) -> list[int]:
    """Return the batch sizes that are a power of two for each device, in increasing order.

    >>> batch_sizes(1, largest=20), batch_sizes(6, largest=20), batch_sizes(8, largest=4)
    ([1, 2, 4, 8, 16], [6, 12], [8])

    Args:
        devices: Number of devices.
        largest: Largest batch size, unless the devices are more.
    """
    sizes = [devices]
    while 2 * sizes[-1] <= largest:
        sizes.append(2 * sizes[-1])
    return sizes


def largest_batch_that_fits(run: Run, sizes: Sequence[int]) -> BatchFit:
    """Return the largest of some batch sizes whose training step fits into memory.

    The step of the largest size is compiled first, so that one compilation is enough if it fits.
    Otherwise the memory of the others is estimated in proportion to the batch, and the step of the
    largest one that may fit is compiled to verify the estimate.

    Args:
        run: The experiment; its batch size is ignored.
        sizes: Batch sizes in increasing order. The smallest one is returned even if it does not
            fit.
    """
    available = available_memory(run.mesh.local_devices)
    analyses: dict[int, int] = {}
    candidates = list(sizes)
    while True:
        size = candidates.pop()
        analyses[size], fixed = step_memory(run, size)
        if analyses[size] <= SHARE * available or not candidates:
            return BatchFit(size, analyses[size], available, analyses)
        per_image = (analyses[size] - fixed) / size
        may_fit = [other for other in candidates if fixed + other * per_image <= SHARE * available]
        candidates = may_fit or candidates[:1]


def step_memory(run: Run, batch_size: int) -> tuple[int, int]:
    """Return the memory that the training step needs, from XLA's analysis of the compiled step.

    The sum is that of a device or, on CPUs, whose devices share the memory, that of all of them.

    Args:
        run: The experiment.
        batch_size: Number of images in the global batch, instead of that of the experiment.

    Returns:
        The bytes of arguments, results and intermediate arrays, and the part of them that does not
        depend on the batch size: the state.

    Raises:
        ConfigError: The platform has no such analysis.
    """
    config = dataclasses.replace(run.config, batch_size=batch_size)
    # The analysis is the same without LLVM's optimizations, and the compilation faster.
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    lowered = dataclasses.replace(run, config=config).lower_train_step()
    found = memory_of(lowered.compile(options), run.mesh)
    if found is None:
        raise ConfigError("this platform has no memory analysis; give the batch size")
    return found


def memory_of(step: jax.stages.Compiled, mesh: Mesh) -> tuple[int, int] | None:
    """Return the memory that a compiled training step needs, as `step_memory` does.

    Args:
        step: The step.
        mesh: The devices.

    Returns:
        The bytes in total and those of the state, or None if the platform has no such analysis.
    """
    analysis: Any = step.memory_analysis()
    if analysis is None:
        return None
    needed = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )
    devices = mesh.local_devices
    shared = len(devices) if devices[0].platform == "cpu" else 1
    return needed * shared, analysis.alias_size_in_bytes * shared


def available_memory(devices: Sequence[jax.Device]) -> int:
    """Return the bytes that a device of this process can still allocate.

    For CPUs it is the memory of the machine, of which a container may have a part only.

    Args:
        devices: The devices of this process, all of one kind.
    """
    if devices[0].platform == "cpu":
        return min([_free_memory(), *_left_to_the_container(_CGROUP)])
    statistics = [device.memory_stats() or {} for device in devices]
    return min(
        stats.get("bytes_limit", _free_memory()) - stats.get("bytes_in_use", 0)
        for stats in statistics
    )


def _free_memory() -> int:
    """Return the bytes that the machine can give without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(kilobytes)
    except (OSError, ValueError):  # The machine does not run Linux.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _left_to_the_container(cgroup: Path) -> list[int]:
    """Return what the limit of a container leaves, as a list of one or, without a limit, none.

    Args:
        cgroup: Directory of the control group, of version 2.
    """
    try:
        limit, used = (
            int((cgroup / name).read_text()) for name in ("memory.max", "memory.current")
        )
        lines = (line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # The kernel drops these cached pages of files when memory is needed.
        (cached,) = (int(value) for name, value in lines if name == "inactive_file")
    except (OSError, ValueError):  # There is no container, or its limit is "max".
        return []
    return [max(0, limit - used + cached)]
