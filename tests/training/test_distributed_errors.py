"""Errors that a process sees because another process is gone."""

import jax
import pytest

from resnet_jax.training.process import distributed
from resnet_jax.training.rundir.checkpoints import CheckpointError, Checkpoints


def wrapped(error: Exception) -> Exception:
    """Return the error as `Checkpoints` wraps errors of writing."""
    checkpoints = object.__new__(Checkpoints)
    checkpoints._directory = "run/checkpoints"
    with pytest.raises(CheckpointError) as raised, checkpoints._explained():
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: [pair.cc:538] reset"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: Barrier failed because: task 1 is gone"), True),
        (TimeoutError("[type.googleapis.com/tensorflow.CoordinationServiceError='']"), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_what_is_the_trace_of_a_peer(
    error: Exception, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "_num_processes", lambda: 2)
    assert distributed.of_a_peer(error) is expected
    assert distributed.of_a_peer(wrapped(error)) is expected
    monkeypatch.setattr(distributed, "_num_processes", lambda: 1)
    assert not distributed.of_a_peer(error)
