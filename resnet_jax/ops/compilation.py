"""Options of XLA for programs that take longer to compile than to run."""

from typing import Any

import jax


def run_once_options() -> dict[str, Any]:
    """Return the compiler options of a program that runs once or from time to time.

    Its machine code is not optimized. On CPUs it also comes from XLA's older code generator, which
    is faster for such programs. Results may differ by rounding from those of the default options.
    Do not use them for programs whose speed matters: an unoptimized training step takes 1.7 times
    as long.

    They are arguments of `jax.jit`, and read the platform, which initializes JAX's backend.
    """
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    if jax.default_backend() == "cpu":
        options["xla_cpu_use_fusion_emitters"] = False
    return options
