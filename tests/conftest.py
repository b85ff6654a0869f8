"""Eight devices on one CPU for every test; this must be said before JAX starts."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

# They need PyTorch, which the tests do without.
collect_ignore = ["data/regenerate_augment.py", "golden/regenerate.py"]
