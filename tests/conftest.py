"""Configure JAX for the tests before it starts: eight devices on one CPU."""

import gc
import os
import signal
from pathlib import Path

import pytest

from tests.fast_compilation import FLAGS

# XLA uses the last value of a flag, so those of the user, such as --xla_cpu_max_isa=AVX2, hold.
os.environ["XLA_FLAGS"] = " ".join(
    (FLAGS, os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8")
)
os.environ["JAX_PLATFORMS"] = "cpu"
# Tests and later runs of the suite share compiled programs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# Tracing makes millions of objects, and looking for cycles among them as often as by default, after
# every 700 new objects, takes about a tenth of its time.
gc.set_threshold(20_000, 10, 10)

# A shell starts background jobs with SIGINT ignored. Programs that the tests start would inherit
# this, and the tests send SIGINT to some of them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Scripts, most of which need PyTorch, which is not a dependency of the tests.
collect_ignore_glob = ["*/regenerate*.py"]
collect_ignore = ["golden/ibn_net.py", "nightly/preprocessing.py"]


@pytest.fixture
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the networks of `tests/training/tiny_train.py` known in this process."""
    from resnet_jax.models.variants import _VARIANTS
    from tests.training.tiny_train import NETWORKS

    for name, fields in NETWORKS.items():
        monkeypatch.setitem(_VARIANTS, name, fields)
