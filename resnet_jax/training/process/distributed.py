"""Several processes, one run: how they find each other, and how they end together.

Each process runs the same program on devices of its own.  Process 0, the primary, writes and
prints; the others print errors alone.  What must be agreed on goes through the key-value store of
`jax.distributed`, which needs no devices and therefore also works while they are stuck.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import jax

# There is no public name of the key-value store.
from jax._src import distributed as _distributed

from resnet_jax.config import DistributedConfig

_FAILURE = "resnet_jax/failure"
_ALIVE = "resnet_jax/alive"
# Longer than any of the waits that it bounds; a peer that is gone is noticed by other means.
_TIMEOUT_SECONDS = 3600


class DistributedError(Exception):
    """The processes have not found each other."""


@contextmanager
def connected(config: DistributedConfig) -> Iterator[None]:
    """Waits until all processes of the run have come, and at the end until all have left.

    In between an error in one process ends all (see `leave`), and so does a process that gives no
    sign of life for ``heartbeat_timeout`` seconds.  A run of one process needs nothing of that.

    Raises:
        DistributedError: the port is taken, or there is no cluster to ask.
    """
    if not config.requested:
        yield
        return
    _initialize(config)
    # What is logged, such as images that are skipped, must say where.
    logging.basicConfig(format=f"process {_process_id()}: %(message)s")
    over = threading.Event()
    peers = threading.Thread(target=_end_with_the_others, daemon=True)
    peers.start()
    if is_primary():
        _client().key_value_set(_ALIVE, "")
    else:
        threading.Thread(target=_watch_the_primary, args=[config, over], daemon=True).start()
    yield
    over.set()
    jax.distributed.shutdown()
    peers.join()


def _initialize(config: DistributedConfig) -> None:
    if config.process_id == 0 and config.coordinator_address:
        _require_free_port(config.coordinator_address)
    # JAX aborts with a stack trace where a process is missing; this comes before it.
    overdue = threading.Timer(config.initialization_timeout, _give_up_waiting, [config])
    overdue.daemon = True
    overdue.start()
    try:
        jax.distributed.initialize(
            config.coordinator_address,
            config.num_processes,
            config.process_id,
            cluster_detection_method=None if config.auto else "deactivate",
            initialization_timeout=config.initialization_timeout + 60,
            heartbeat_timeout_seconds=config.heartbeat_timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"no cluster was detected ({error}); give distributed.coordinator_address, "
            "distributed.num_processes and distributed.process_id"
            if config.auto
            else f"jax.distributed: {error}"
        ) from error
    finally:
        overdue.cancel()


def is_primary() -> bool:
    """Whether this is the process that writes and prints."""
    return _process_id() == 0


def barrier(name: str) -> None:
    """Waits until every process has come to the barrier of this name, which is used once."""
    if _num_processes() > 1:
        _client().wait_at_barrier(f"resnet_jax/{name}", _TIMEOUT_SECONDS * 1000)


@contextmanager
def primary_first(name: str) -> Iterator[None]:
    """The others run the block after the primary has; the name is used once."""
    if not is_primary():
        barrier(name)
    yield
    if is_primary():
        barrier(name)


def gather(name: str, value: str) -> list[str]:
    """What every process gives, in the order of the processes; the name is used once."""
    if _num_processes() == 1:
        return [value]
    key = f"resnet_jax/{name}"
    _client().key_value_set(f"{key}/{_process_id()}", value)
    return [
        _client().blocking_key_value_get(f"{key}/{process}", _TIMEOUT_SECONDS * 1000)
        for process in range(_num_processes())
    ]


def from_primary(name: str, value: str) -> str:
    """Return the value that process 0 gives, in every process; the name is used once."""
    key = f"resnet_jax/{name}"
    if is_primary():
        if _num_processes() > 1:
            _client().key_value_set(key, value)
        return value
    return _client().blocking_key_value_get(key, _TIMEOUT_SECONDS * 1000)


def leave(message: str, code: int) -> NoReturn:
    """Ends this process with a line on the error stream, and all others with the same code.

    Args:
        message: why; the others print it too.
        code: of all processes, unless another one has failed before.
    """
    _print(message)
    if _num_processes() > 1:
        failure = {"process": _process_id(), "code": code, "message": message}
        # Only the first failure stands.
        with suppress(Exception):
            _client().key_value_set(_FAILURE, json.dumps(failure))
    _exit(code)


def leave_after(error: Exception, config: DistributedConfig) -> NoReturn:
    """As `leave`, for an error that nobody has foreseen, with its trace and code 1.

    Where it is the trace of a process that is gone (see `of_a_peer`), JAX finds out which one it is
    when its heartbeats have been missing for long enough, and then ends all processes.
    """
    trace = "".join(traceback.format_exception(error)).rstrip()
    if _num_processes() == 1:
        leave(trace, 1)
    if of_a_peer(error):
        # Where another one has failed with a message, `_end_with_the_others` is about to print it.
        time.sleep(3)
        _print(
            f"another process seems to be gone ({_first_line(error)}); within "
            f"{config.heartbeat_timeout} s it will be known which one"
        )
        time.sleep(config.heartbeat_timeout + 10)
        # All of them are alive: the fault is here.
    _print(trace)
    leave(f"error: {type(error).__name__}: {error}", 1)


def of_a_peer(error: BaseException) -> bool:
    """Whether an error is what a process sees of another one that is gone.

    Collectives and barriers fail then, be it in the midst of a step or of what Orbax does, which
    wraps what it finds.
    """
    return _num_processes() > 1 and any(
        "Gloo" in str(found)
        or "CoordinationService" in str(found)
        or (
            isinstance(found, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(found)
        )
        for found in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    *_, origin = _chain(error)
    return str(origin).partition("\n")[0]


def _end_with_the_others() -> None:
    try:
        failure = json.loads(_client().blocking_key_value_get(_FAILURE, 2**31 - 1))
    except Exception:
        # The run is over, or the store is gone, in which case JAX ends this process.
        return
    if failure["process"] != _process_id():
        _print(f"ended, since process {failure['process']} failed: {failure['message']}")
        _exit(failure["code"])


def _exit(code: int) -> NoReturn:
    if is_primary() and _num_processes() > 1:
        # The store ends with this process, and JAX then aborts the others: they must have heard,
        # and ended, before.
        time.sleep(1)
    # An orderly end would wait for processes that wait for this one, and for a compilation.
    os._exit(code)


def _watch_the_primary(config: DistributedConfig, over: threading.Event) -> None:
    """Says so where process 0 is silent: JAX then ends this process without naming any."""
    client, patience = _client(), config.heartbeat_timeout / 4
    with suppress(Exception):
        client.blocking_key_value_get(_ALIVE, _TIMEOUT_SECONDS * 1000)
    asker = ThreadPoolExecutor(1, thread_name_prefix="primary")
    while not over.wait(min(1.0, patience)):
        try:
            asker.submit(client.key_value_try_get, _ALIVE).result(timeout=patience)
        except TimeoutError:
            _print(
                f"process 0 has not answered for {patience:g} s; unless it does, this process ends"
            )
            return
        except Exception:
            return


def _give_up_waiting(config: DistributedConfig) -> None:
    where = f" at {config.coordinator_address}" if config.coordinator_address else ""
    who = "" if config.process_id is None else f" {config.process_id} of {config.num_processes}"
    _print(
        f"error: process{who} has waited {config.initialization_timeout} s for the others{where}; "
        "start every one of them, with the same address, or raise "
        "distributed.initialization_timeout"
    )
    os._exit(2)


def _require_free_port(address: str) -> None:
    """JAX would crash where the port is taken."""
    port = int(address.rpartition(":")[2])
    dualstack = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dualstack else socket.AF_INET
    try:
        with socket.create_server(("", port), family=family, dualstack_ipv6=dualstack):
            pass
    except OSError as error:
        raise DistributedError(
            f"process 0 cannot listen on port {port} ({os.strerror(error.errno or 0)}); choose "
            "another one in distributed.coordinator_address"
        ) from error


def _print(message: str) -> None:
    sys.stdout.flush()
    who = f"process {_process_id()}: " if _num_processes() > 1 else ""
    sys.stderr.write(f"{who}{message}\n")
    sys.stderr.flush()


def _client() -> Any:
    return _distributed.global_state.client


def _num_processes() -> int:
    return _distributed.global_state.num_processes or 1


def _process_id() -> int:
    return _distributed.global_state.process_id or 0
