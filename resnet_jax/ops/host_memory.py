"""Memory that this process has freed, kept for its next allocation.

The C library gives large blocks back to the system as soon as they are freed.  On CPUs XLA frees
all intermediate arrays at the end of a step and allocates them anew for the next one, and the
system then clears every page of them again: a fifth of a ResNet-50's training step.
"""

import ctypes

import jax

# Parameters of `mallopt`, by their numbers in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed; the process stays as large as it once was.

    On CPUs, computations run in the thread that calls them from then on, and are done when the call
    returns: only the main thread has a heap for arrays of any size, those of others hold 64 MiB.
    It must come before the first array or the first ``jax.devices()``.

    Returns:
        Whether there is such a choice; other C libraries than glibc have none.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
