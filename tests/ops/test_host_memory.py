"""Freed memory is kept for the next computation, on hosts that compute on the CPU."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resnet_jax.ops import host_memory
from resnet_jax.ops.host_memory import keep_freed_memory

PROGRAM = """
import resource, sys
import jax
import jax.numpy as jnp
from resnet_jax.ops.host_memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
    # The question for the platform must not start a backend, which would be too early.
    assert not jax._src.xla_bridge.backends_are_initialized()

x = jnp.ones((4096, 4096))
program = jax.jit(lambda x: x + 1)
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # The output takes 64 MiB and is freed at once.
    jax.block_until_ready(program(x))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


def page_faults(mode: str) -> int:
    """Run a computation several times; return its smallest number of page faults, of 4 KiB each."""
    command = [sys.executable, "-c", PROGRAM, mode]
    root = Path(__file__).parents[2]
    return int(subprocess.check_output(command, cwd=root, text=True, timeout=120))


def test_the_system_need_not_clear_pages_again() -> None:
    assert page_faults("return") > 10_000
    assert page_faults("keep") < 1_000


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the settings in a list instead of applying them, on a host without an accelerator."""
    done: list[Any] = []
    libc = SimpleNamespace(mallopt=lambda *setting: done.append(setting) or 1)
    config = SimpleNamespace(jax_platforms=None, update=lambda *setting: done.append(setting))
    monkeypatch.setattr(host_memory, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr(host_memory, "ctypes", SimpleNamespace(CDLL=lambda _: libc))
    monkeypatch.setattr(host_memory, "find_spec", lambda _: None)
    monkeypatch.setattr(host_memory, "entry_points", lambda **_: ())
    return done


@pytest.mark.parametrize("sign", ["jax_plugins", "libtpu", "entry point"])
def test_an_accelerator_host_is_left_alone(
    settings: list[Any], monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    monkeypatch.setattr(host_memory, "find_spec", lambda name: "found" if name == sign else None)
    if sign == "entry point":
        monkeypatch.setattr(host_memory, "entry_points", lambda **_: ["plugin"])
    assert not keep_freed_memory()
    assert not settings
    # The settings are applied if JAX is told to compute on the CPU, or if the caller asks for them.
    monkeypatch.setattr(host_memory.jax.config, "jax_platforms", "cpu,cuda")
    assert keep_freed_memory()
    monkeypatch.setattr(host_memory.jax.config, "jax_platforms", "cuda,cpu")
    assert not keep_freed_memory()
    assert keep_freed_memory("always")


def test_a_cpu_host_can_be_left_alone(settings: list[Any]) -> None:
    assert not keep_freed_memory("never")
    assert not settings
    assert keep_freed_memory()
    assert ("jax_cpu_enable_async_dispatch", False) in settings
