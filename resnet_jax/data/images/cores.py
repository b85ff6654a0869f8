"""The number of processor cores that are available to a process."""

import os


def usable_cores() -> int:
    """Return the number of cores that a batch system, container or taskset allows this process."""
    if hasattr(os, "sched_getaffinity"):  # Only Linux has this function.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
