"""What happens to the other processes when one gets a signal, is killed, stops or fails."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resnet_jax.config import DistributedConfig
from tests.training.ranks import ENDLESS, ROOT, TINY, Rank, ended, started, wait_until

OPTIONS = (*ENDLESS, "--checkpoint.keep-latest=1000", "--distributed.heartbeat-timeout=5")


def digests(workdir: Path, step: int) -> dict[str, Any]:
    """Return the digests of the arrays in a checkpoint."""
    file = workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA"
    return json.loads(file.read_text())["custom_metadata"]["arrays"]


def checkpoints(workdir: Path) -> list[int]:
    """Return the steps that are completely saved."""
    names = [path.name for path in (workdir / "checkpoints").glob("[0-9]*")]
    return sorted(int(name) for name in names if name.isdigit())


@pytest.fixture(scope="module")
def preempted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Rank]]:
    """The run directory of two processes; SIGTERM was sent to the second one."""
    workdir = tmp_path_factory.mktemp("preempted") / "run"
    with started(workdir, *OPTIONS) as ranks:
        wait_until(lambda: "step 4/" in ranks[0].out, ranks)
        ranks[1].process.send_signal(signal.SIGTERM)
        assert ended(ranks) == [143, 143], ranks[0].err + ranks[1].err
    return workdir, ranks


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory, preempted: tuple[Path, list[Rank]]
) -> tuple[Path, Rank]:
    """The same run, continued until its next checkpoint, when the second process is stopped.

    The work directory and the first process.
    """
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    shutil.copytree(preempted[0], workdir)
    due = checkpoints(workdir)[-1] // 3 * 3 + 3
    with started(workdir, *OPTIONS) as ranks:
        wait_until(lambda: due in checkpoints(workdir), ranks)
        ranks[1].process.send_signal(signal.SIGSTOP)
        [code] = ended(ranks[:1])
        assert code == -signal.SIGABRT
        # It cannot end while it is stopped, and must not go on alone afterwards.
        assert ranks[1].process.poll() is None
        ranks[1].process.send_signal(signal.SIGCONT)
        assert ended(ranks[1:])[0] != 0
    return workdir, ranks[0]


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, preempted: tuple[Path, list[Rank]]
) -> tuple[Path, Rank]:
    """A new run that would not end by itself. Its second process is killed."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    due = checkpoints(preempted[0])[-1] // 3 * 3 + 3
    with started(workdir, *OPTIONS) as ranks:
        wait_until(lambda: due in checkpoints(workdir), ranks)
        ranks[1].process.send_signal(signal.SIGKILL)
        [code] = ended(ranks[:1])
        assert code == -signal.SIGABRT
    return workdir, ranks[0]


def test_sigterm_to_any_process_saves_the_same_step_in_all(
    preempted: tuple[Path, list[Rank]],
) -> None:
    workdir, (first, second) = preempted
    last = checkpoints(workdir)[-1]
    assert first.err == (
        f"ended by SIGTERM after step {last} of 6000, which is saved; the same command continues "
        "from there\n"
    )
    assert second.out == ""
    assert "SIGTERM caught at" in second.err
    assert second.err.count("\n") == 1
    assert f"step {last}/6000" in first.out
    assert f"step {last + 1}/6000" not in first.out
    assert re.search(
        r"^Wall time: training steps [\d.]+%, .*, idle and start [\d.]+%$", first.out, re.M
    )


def test_a_preempted_run_continues_bit_for_bit(
    preempted: tuple[Path, list[Rank]],
    stopped: tuple[Path, Rank],
    killed: tuple[Path, Rank],
) -> None:
    last = checkpoints(preempted[0])[-1]
    assert f"Continuing from the checkpoint of step {last}." in stopped[1].out
    due = last // 3 * 3 + 3
    assert digests(stopped[0], due) == digests(killed[0], due)
    assert digests(stopped[0], due) != digests(preempted[0], last), "negative control"


@pytest.mark.parametrize("fault", ["stopped", "killed"])
def test_a_process_that_is_gone_ends_the_others_and_is_named(
    fault: str, request: pytest.FixtureRequest
) -> None:
    _, survivor = request.getfixturevalue(fault)
    assert "The following tasks are unhealthy (stopped sending heartbeats):\n1\n" in survivor.err


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (signal.SIGSTOP, "process 1: process 0 has not answered for 1.25 s; unless it does, this"),
        # This message comes from JAX, whose leader is process 0.
        (signal.SIGKILL, "Either the leader task was preempted/died/restarted unexpectedly"),
    ],
    ids=["stopped", "killed"],
)
def test_without_process_0_the_others_end_and_name_it(
    fault: signal.Signals, message: str, tmp_path: Path
) -> None:
    with started(tmp_path / "run", *OPTIONS) as ranks:
        wait_until(lambda: "step 4/" in ranks[0].out, ranks)
        ranks[0].process.send_signal(fault)
        [code] = ended(ranks[1:])
        assert ranks[0].process.poll() in (None, -signal.SIGKILL)
        ranks[0].process.send_signal(signal.SIGCONT)
        assert ended(ranks[:1])[0] != 0
    assert code == -signal.SIGABRT
    assert message in ranks[1].err


def test_by_default_half_a_minute_is_given() -> None:
    assert DistributedConfig().heartbeat_timeout == 30


def test_an_error_in_one_process_ends_all_with_its_message(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with started(workdir, *OPTIONS) as ranks:
        wait_until(lambda: "step 4/" in ranks[0].out, ranks)
        # Of all errors that happen within Python, this one can be sent from outside.
        ranks[1].process.send_signal(signal.SIGINT)
        assert ended(ranks) == [130, 130]
    message = "interrupted; the same command continues from the last checkpoint"
    assert ranks[1].err == f"process 1: {message}\n"
    assert ranks[0].err == f"process 0: ended, since process 1 failed: {message}\n"


def test_a_missing_process_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    options = (*TINY, "--distributed.initialization-timeout=3")
    with started(tmp_path / "run", *options) as ranks:
        ranks[1].kill()
        assert ended(ranks[:1]) == [2]
    assert "error: process 0 of 2 has waited 3 s for the others at 127.0.0.1:" in ranks[0].err
    assert ranks[0].err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        process = subprocess.run(
            [
                sys.executable,
                "train.py",
                f"--workdir={tmp_path / 'run'}",
                f"--distributed.coordinator-address=127.0.0.1:{port}",
                "--distributed.num-processes=2",
                "--distributed.process-id=0",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert process.returncode == 2
    assert process.stderr == (
        f"error: process 0 cannot listen on port {port} (Address already in use); choose another "
        "one in distributed.coordinator_address\n"
    )
    assert not (tmp_path / "run").exists()
