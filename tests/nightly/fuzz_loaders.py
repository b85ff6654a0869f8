"""Fuzz everything that reads a file: no file may do more than raise an error of one line.

    python -m tests.nightly.fuzz_loaders [--seconds 600] [--seed 0] [LOADER ...]

Each loader of `tests/fuzzing.py` runs in a process of its own and gets files from Hypothesis for
the given number of seconds. A file breaks a loader if the loader

- ends the process, or takes more than a minute;
- takes more than ten seconds, or asks for more than four gigabytes of memory;
- raises another error than it documents, or one whose message is not one line of text;
- starts a process, opens a connection, writes a file elsewhere, unpickles a global, or imports a
  package that was not imported before, which an audit hook of the interpreter notices.

Prints a row of a Markdown table for each loader, and the shortest file that breaks it, as a Python
literal. The exit code is 1 if a loader broke.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzzing import LOADERS, BrokenError, check

_ROUND = 2000
_HANGS_AFTER_S = 60
_MEMORY = 4 * 2**30
_FORBIDDEN = (
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
    *("pickle.find_class", "shutil.", "socket.connect", "socket.getaddrinfo"),
    *("subprocess.Popen", "urllib.Request"),
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("loaders", nargs="*", metavar="LOADER", help=", ".join(LOADERS))
    parser.add_argument("--seconds", type=float, default=600, help="for each loader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.loaders) - LOADERS.keys():
        parser.error(f"unknown loaders {', '.join(unknown)}; choose from {', '.join(LOADERS)}")
    if arguments.child:
        (name,) = arguments.loaders
        found = fuzz(name, arguments.seconds, arguments.seed, arguments.child)
        (arguments.child / "result.json").write_text(json.dumps(found))
        return 0
    print("| loader | seconds | CPU seconds | files | refused | largest memory, MB | broken |")
    print("|---|---:|---:|---:|---:|---:|---|", flush=True)
    broken = 0
    for name in arguments.loaders or LOADERS:
        found = run_child(name, arguments.seconds, arguments.seed)
        broken += found["broken"] != "no"
        print(
            f"| {name} | {found['seconds']:.0f} | {found['cpu']:.0f} | {found['files']:,} | "
            f"{found['refused']:,} | {found['memory']:.0f} | {found['broken']} |",
            flush=True,
        )
    return int(broken > 0)


def run_child(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Fuzz a loader in another process, and return the result."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        options = ["--seconds", str(seconds), "--seed", str(seed), "--child", str(directory), name]
        started = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-m", "tests.nightly.fuzz_loaders", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        result = directory / "result.json"
        if result.exists():
            return json.loads(result.read_text())
        file = directory / LOADERS[name].name
        content = file.read_bytes() if file.exists() else b""
        print(process.stderr, file=sys.stderr)
        return {
            "seconds": time.monotonic() - started,
            "cpu": 0,
            "files": 0,
            "refused": 0,
            "memory": 0,
            "broken": f"exit code {process.returncode} after {content!r}",
        }


def fuzz(name: str, seconds: float, seed: int, directory: Path) -> dict[str, Any]:
    """Fuzz a loader in this process for some seconds, and return the result."""
    loader, counts = LOADERS[name], {"files": 0, "refused": 0}
    broken: list[tuple[bytes, str]] = []
    _warm_up(name, directory)
    violations, watch = _audit(directory)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
    started, cpu = time.monotonic(), time.process_time()

    def run(content: bytes) -> None:
        if time.monotonic() - started > seconds:
            return
        faulthandler.dump_traceback_later(_HANGS_AFTER_S, exit=True)
        counts["files"] += 1
        try:
            watch(True)
            counts["refused"] += check(loader, content, directory)
            watch(False)
            if violations:
                raise BrokenError(f"it did {violations}")
        except BrokenError as error:
            broken.append((content, str(error)))
            raise
        finally:
            watch(False)
            violations.clear()
            faulthandler.cancel_dump_traceback_later()

    rounds = 0
    while time.monotonic() - started < seconds and not broken:
        test = settings(
            max_examples=_ROUND,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(hypothesis.seed(seed + rounds)(given(loader.files)(run)))
        rounds += 1
        try:
            test()
        except (BrokenError, BaseExceptionGroup) as error:
            print(f"{name}: {error}", file=sys.stderr)
    # Hypothesis repeats the shortest file at the end.
    shortest = f"{broken[-1][1]} for `{broken[-1][0]!r}`" if broken else "no"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        **counts,
        "memory": (peak - before) / 1024,
        "broken": shortest,
    }


def _warm_up(name: str, directory: Path) -> None:
    """Let the loader import what it needs."""

    @settings(
        max_examples=100,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(LOADERS[name].files)
    def run(content: bytes) -> None:
        with contextlib.suppress(BrokenError):
            check(LOADERS[name], content, directory)

    run()


def _audit(directory: Path) -> tuple[list[str], Callable[[bool], None]]:
    """Return the list of forbidden events, and a function that switches the hook on and off."""
    violations: list[str] = []
    active = False

    def switch(on: bool) -> None:
        nonlocal active
        active = on

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not active:
            return
        if event.startswith(_FORBIDDEN):
            violations.append(f"{event} {arguments!r:.100}")
        elif event == "open":
            path, _, flags = arguments
            inside = isinstance(path, str) and path.startswith(str(directory))
            if isinstance(flags, int) and flags & _WRITES and not inside:
                violations.append(f"open {path!r} for writing")
        elif event == "import" and arguments[0].partition(".")[0] not in sys.modules:
            violations.append(f"import {arguments[0]}")

    sys.addaudithook(hook)
    return violations, switch


if __name__ == "__main__":
    sys.exit(main())
