"""Runs of several real processes on this machine, for tests."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fast_compilation import FLAGS

ROOT = Path(__file__).parents[2]
# Six steps of eight images on a tiny network, with checkpoints of steps 3 and 6.
TINY = (
    "synthetic-resnet50",
    "--model.name=tiny_resnet",
    "--data.image-size=8",
    "--data.num-classes=10",
    "--data.train-examples=48",
    "--data.test-examples=20",
    "--batch-size=8",
    "--epochs=1",
    "--schedule.warmup-epochs=0.1",
    "--checkpoint.every-steps=3",
    "--log-every-steps=1",
)
# So long that it never ends by itself during a test.
ENDLESS = (*TINY, "--epochs=1000", "--evaluate-every-epochs=1000")


class Rank:
    """One process of a run, with its output."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "training" / "tiny_train.py"), *arguments],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=err,
                # A group of its own, so that all of it can be killed.
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """Its output, without the lines of the Gloo library."""
        return _without_gloo(self._out)

    @property
    def err(self) -> str:
        """Its error stream, without the lines of the Gloo library."""
        return _without_gloo(self._err)

    def kill(self) -> None:
        """Kill it and all its children."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _without_gloo(file: Path) -> str:
    lines = file.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("[Gloo] Rank"))


@contextmanager
def started(
    workdir: Path, *arguments: str, processes: int = 2, devices: int = 1
) -> Iterator[list[Rank]]:
    """Yield the processes of a run, and kill those that still run at the end.

    Args:
        workdir: The run directory. The output of the processes goes to files beside it.
        *arguments: Command line of all of them.
        processes: Number of processes.
        devices: Number of devices of each process.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
    }
    port = free_port()
    ranks: list[Rank] = []
    try:
        for rank in range(processes):
            flags = (
                f"--distributed.coordinator-address=127.0.0.1:{port}",
                f"--distributed.num-processes={processes}",
                f"--distributed.process-id={rank}",
            )
            given = [*arguments, f"--workdir={workdir}", *(flags if processes > 1 else ())]
            ranks.append(Rank(given, environment, workdir.with_name(f"rank{rank}")))
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()


def free_port() -> int:
    """Return a free port, below the range from which the kernel assigns ports."""
    while True:
        port = random.randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def ended(ranks: list[Rank], *, within: float = 240) -> list[int]:
    """Wait for all processes and return their exit codes."""
    deadline = time.monotonic() + within
    try:
        return [rank.process.wait(max(0, deadline - time.monotonic())) for rank in ranks]
    except subprocess.TimeoutExpired:
        output = "\n".join(f"-- {rank.process.args}\n{rank.out}\n{rank.err}" for rank in ranks)
        raise AssertionError(f"still running after {within} s:\n{output}") from None


def wait_until(condition: Callable[[], bool], ranks: list[Rank], *, within: float = 240) -> None:
    """Wait for a condition while all processes run."""
    deadline = time.monotonic() + within
    while not condition():
        assert all(rank.process.poll() is None for rank in ranks), "".join(r.err for r in ranks)
        assert time.monotonic() < deadline, "".join(rank.out + rank.err for rank in ranks)
        time.sleep(0.02)


def run(workdir: Path, *arguments: str, processes: int = 2, devices: int = 1) -> list[Rank]:
    """Return the processes of a run that has ended; see `started`."""
    with started(workdir, *arguments, processes=processes, devices=devices) as ranks:
        codes = ended(ranks)
    assert codes == [0] * processes, "".join(rank.out + rank.err for rank in ranks)
    return ranks
