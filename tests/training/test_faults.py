"""Faults of the machine: a full disk, a clock that jumps, devices that hang."""

import itertools
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.config import CheckpointConfig
from resnet_jax.report import read_metrics
from resnet_jax.training.process.watchdog import EXIT_CODE
from resnet_jax.training.rundir.checkpoints import CheckpointError, Checkpoints
from tests.nightly.kill_during_save import kills
from tests.training.ranks import ENDLESS, ended, started, wait_until
from tests.training.test_checkpoint import abstract, make_state

KEEP_ALL = CheckpointConfig(keep_latest=100)
# Three arrays of 1.2 MB each that cannot be compressed.
LARGE = 100_000


@contextmanager
def little_space(directory: Path, size: int) -> Iterator[None]:
    """Limit a directory to a number of bytes; where mounting is not allowed, limit each file."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_ends_the_run_and_leaves_what_is_there(tmp_path: Path) -> None:
    directory = tmp_path / "disk"
    with little_space(directory, 1_000_000):
        with Checkpoints(directory, KEEP_ALL) as checkpoints:
            checkpoints.save(make_state(1), badness=1, metadata={})
        with (
            pytest.raises(
                CheckpointError,
                match=r"could not be written to .*(No space left on device|File too large)",
            ) as error,
            Checkpoints(directory, KEEP_ALL) as checkpoints,
        ):
            checkpoints.save(make_state(2, width=LARGE), badness=2, metadata={})
        assert "\n" not in str(error.value)
        with Checkpoints(directory, KEEP_ALL) as checkpoints:
            assert checkpoints.latest_step == 1
            state, _ = checkpoints.restore(abstract(make_state(1)))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(1))


def test_a_disk_that_is_full_of_metrics_ends_the_run_in_one_line(tmp_path: Path) -> None:
    workdir = tmp_path / "disk"
    # The run takes about sixty steps, without a checkpoint in between.
    with (
        little_space(workdir, 60_000),
        started(workdir, *ENDLESS, "--checkpoint.every-steps=100000", processes=1) as [rank],
    ):
        assert ended([rank]) == [2], rank.err
        assert rank.err in {
            f"error: metrics could not be written to {workdir}: {reason}; mend that, and the same "
            "command continues from the last checkpoint\n"
            for reason in ("No space left on device", "File too large")
        }
        # No earlier record is lost.
        steps = [record["step"] for record in read_metrics(workdir / "metrics.jsonl")]
    assert f"step {len(steps)}/6000" in rank.out or f"step {len(steps) - 1}/6000" in rank.out
    assert steps == list(range(1, len(steps) + 1))


def test_ctrl_c_does_not_wait_for_a_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With an empty cache the compilation takes longer than the run has to end.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    options = (*ENDLESS, "--model.name=cifar_resnet110")
    with started(tmp_path / "run", *options, processes=1) as [rank]:
        wait_until(lambda: "software" in rank.out, [rank])
        rank.process.send_signal(signal.SIGINT)
        assert ended([rank], within=15) == [130]
    assert rank.err == "interrupted; the same command continues from the last checkpoint\n"
    assert "Compiled in" not in rank.out


def test_the_order_of_checkpoints_is_that_of_their_steps_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CheckpointConfig(keep_latest=2, keep_best=0)
    now, now_ns = time.time, time.time_ns
    for step in (1, 2, 3, 4):
        # The clock goes back by an hour each time it is read.
        monkeypatch.setattr(time, "time", lambda step=step: now() - 3600 * step)
        monkeypatch.setattr(time, "time_ns", lambda step=step: now_ns() - 3600 * 10**9 * step)
        with Checkpoints(tmp_path, config) as checkpoints:
            assert checkpoints.latest_step == (step - 1 or None)
            checkpoints.save(make_state(step), badness=step, metadata={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


HANGING = '''
import sys, time
import jax.numpy as jnp
from resnet_jax.training.process.watchdog import Watchdog

class Never:
    """An array that no device ever finishes. On CPUs, a long computation blocks the caller."""
    def is_ready(self):
        return False

where = sys.argv[1]
with Watchdog(2.0) as watchdog:
    for _ in range(3):
        time.sleep(1)
        watchdog.done()
    watchdog.watch(Never() if where == "device" else jnp.ones(3))
    time.sleep(1 if where == "nowhere" else 60)
print("came to its end")
'''


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("device", "error: the devices have not finished a step for 2 s; the stacks of all"),
        ("host", "error: no step has ended for 2 s; the stacks of all threads follow"),
        ("nowhere", None),
    ],
)
def test_the_watchdog_ends_what_hangs_and_nothing_else(where: str, message: str | None) -> None:
    process = subprocess.run(
        [sys.executable, "-c", HANGING, where],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if message is None:
        assert (process.returncode, process.stdout) == (0, "came to its end\n"), process.stderr
        return
    assert process.returncode == EXIT_CODE
    assert process.stderr.startswith(message)
    assert 'File "<string>", line ' in process.stderr, "the stack of the main thread"


def test_a_kill_at_a_random_moment_of_a_save_loses_nothing_that_was_saved() -> None:
    outcomes = []
    for outcome in itertools.islice(kills(seed=0), 10):
        outcomes.append(outcome)
        # About one kill in four comes between two writes.
        if len(outcomes) >= 3 and any(outcome["unfinished"] for outcome in outcomes):
            break
    assert outcomes[-1]["restored"] > 0
    assert any(outcome["unfinished"] for outcome in outcomes), "no kill hit a write"
