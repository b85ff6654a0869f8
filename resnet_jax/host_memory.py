"""Memory that this process has freed, kept for its next allocation.

The C library gives large blocks back to the system as soon as they are freed.  On CPUs XLA frees
all intermediate arrays at the end of a step and allocates them anew for the next one, and the
system then clears every page of them again: a fifth of a ResNet-50's training step.
"""

import ctypes

# Parameters of `mallopt`, by their numbers in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed; the process stays as large as it once was.

    It must come before JAX starts its threads, that is before the first array or the first
    ``jax.devices()``: a thread that has memory of its own by then goes on as before.  All threads
    allocate from one heap afterwards.

    Returns:
        Whether there is such a choice; other C libraries than glibc have none.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    return all(mallopt(parameter, value) for parameter, value in settings)
