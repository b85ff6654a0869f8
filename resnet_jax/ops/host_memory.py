"""Memory that the process has freed, kept for its next allocations.

The C library returns large blocks to the system as soon as they are freed.  On CPUs, XLA frees all
intermediate arrays at the end of a step and allocates them again for the next one, and Linux then
clears every page again: 97,000 page faults in each ResNet-50 training step at 224 pixels, batch 4.
A step of batch 16 takes 1.24 times as long when memory is returned
(``python -m benchmarks.train_step --parts``, 2 cores of an AMD EPYC (Zen 4, AVX-512), jax 0.10.2,
2026-11-28).
"""

import ctypes
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal

import jax

# Numbers of the parameters of `mallopt`, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory(mode: Literal["auto", "always", "never"] = "auto") -> bool:
    """Make the C library keep freed memory, so that the process never shrinks.

    From then on, CPU computations run in the thread that calls them and are done when the call
    returns.  The reason is that only the main thread has a heap without a size limit, while the
    heaps of other threads hold 64 MiB each.  Both settings last as long as the process.

    Call this before JAX creates an array or lists its devices; afterward it has no effect on
    XLA's threads.  It does not initialize a JAX backend itself.

    Args:
        mode: ``"auto"`` applies the settings if JAX will compute on the CPU.  If
            ``jax.config.jax_platforms`` (the variable ``JAX_PLATFORMS``) names platforms, the first
            one decides.  Otherwise a host with an installed JAX plugin or libtpu counts as an
            accelerator host.  ``"always"`` applies them on every host, and ``"never"`` changes
            nothing.

    Returns:
        Whether the settings apply.  C libraries other than glibc do not have them.
    """
    if mode == "never" or (mode == "auto" and not _computes_on_cpu()):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))


def _computes_on_cpu() -> bool:
    """Return whether JAX will choose the CPU, without initializing a backend.

    JAX itself finds its plugins in the entry points and the namespace package of this name.
    """
    # JAX adds this option while it runs, so type checkers do not know it.
    config: Any = jax.config
    if platforms := config.jax_platforms:
        return platforms.split(",")[0] == "cpu"
    found = find_spec("jax_plugins") or find_spec("libtpu") or entry_points(group="jax_plugins")
    return not found
