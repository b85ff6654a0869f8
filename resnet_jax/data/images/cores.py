"""How many threads a process should have."""

import os


def usable_cores() -> int:
    """Those that a batch system, a container or taskset leaves to this process."""
    if hasattr(os, "sched_getaffinity"):  # Only Linux has it.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
