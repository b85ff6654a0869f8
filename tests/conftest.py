"""Give every test eight devices on one CPU, which must be set before JAX starts."""

import os
import signal
from pathlib import Path

# Flags of the user stay, such as --xla_cpu_max_isa=AVX2.  XLA takes the last value of a flag.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
os.environ["JAX_PLATFORMS"] = "cpu"
# What one test has compiled need not be compiled again by another, nor by the next run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# A shell starts what runs in its background with Ctrl-C ignored, and so would the programs that the
# tests send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

# They need PyTorch, which the tests do without.
collect_ignore = ["data/regenerate_augment.py", "golden/regenerate.py"]
