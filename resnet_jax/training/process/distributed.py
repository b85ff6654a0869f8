"""Several processes of one run: how they connect, agree and end together.

Each process runs the same program on its own devices.  Process 0, the primary, writes and prints;
the others print errors only.  They agree through the key-value store of `jax.distributed`, which
needs no devices and therefore also works while the devices are stuck.
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

# The key-value store has no public name.
from jax._src import distributed as _distributed

from resnet_jax.config import DistributedConfig

_FAILURE = "resnet_jax/failure"
_ALIVE = "resnet_jax/alive"
# Longer than any wait that it bounds. A process that is gone is noticed by other means.
_TIMEOUT_SECONDS = 3600


class DistributedError(Exception):
    """Raised when the processes of a run cannot connect."""


@contextmanager
def connected(config: DistributedConfig) -> Iterator[None]:
    """Wait until all processes of the run have connected, and at the end until all have left.

    In between, an error in one process ends all of them (see `leave`), and so does a process that
    sends no heartbeat for ``heartbeat_timeout`` seconds.  For a run of one process this does
    nothing.

    Raises:
        DistributedError: The port is taken, or no cluster is detected.
    """
    if not config.requested:
        yield
        return
    _initialize(config)
    # Log messages, such as those about skipped images, must name the process.
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
    # If a process is missing, JAX aborts with a stack trace; this timer ends the wait earlier.
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
    """Return True in the process that writes and prints."""
    return _process_id() == 0


def barrier(name: str) -> None:
    """Wait until every process has reached the barrier of this name, which is used once."""
    if _num_processes() > 1:
        _client().wait_at_barrier(f"resnet_jax/{name}", _TIMEOUT_SECONDS * 1000)


@contextmanager
def primary_first(name: str) -> Iterator[None]:
    """Let the other processes run the block after the primary; the name is used once."""
    if not is_primary():
        barrier(name)
    yield
    if is_primary():
        barrier(name)


def gather(name: str, value: str) -> list[str]:
    """Return the values that all processes give, in their order; the name is used once."""
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
    """End this process with a line on the error stream, and all others with the same code.

    Args:
        message: The reason, which the others print too.
        code: Exit code of all processes, unless another one has failed before.
    """
    _print(message)
    if _num_processes() > 1:
        failure = {"process": _process_id(), "code": code, "message": message}
        # The first failure is kept.
        with suppress(Exception):
            _client().key_value_set(_FAILURE, json.dumps(failure))
    _exit(code)


def leave_after(error: Exception, config: DistributedConfig) -> NoReturn:
    """End all processes as `leave` does, after an unexpected error, with its trace and code 1.

    If the error shows that another process is gone (see `of_a_peer`), JAX finds out which one when
    its heartbeats have been missing for long enough, and then ends all processes.
    """
    trace = "".join(traceback.format_exception(error)).rstrip()
    if _num_processes() == 1:
        leave(trace, 1)
    if of_a_peer(error):
        # If another process has failed with a message, `_end_with_the_others` will print it.
        time.sleep(3)
        _print(
            f"another process seems to be gone ({_first_line(error)}); within "
            f"{config.heartbeat_timeout} s it will be known which one"
        )
        time.sleep(config.heartbeat_timeout + 10)
        # All processes are alive, so the error is in this one.
    _print(trace)
    leave(f"error: {type(error).__name__}: {error}", 1)


def of_a_peer(error: BaseException) -> bool:
    """Return True if an error shows that another process is gone.

    Collectives and barriers then fail, in a step or within Orbax, which wraps the error.
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
    """Yield the error, its cause, the cause of that, and so on."""
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
        # The run is over, or the store is gone and JAX ends this process.
        return
    if failure["process"] != _process_id():
        _print(f"ended, since process {failure['process']} failed: {failure['message']}")
        _exit(failure["code"])


def end_at_once(code: int) -> NoReturn:
    """End this process, which has left the others, without waiting for its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    _exit(code)


def _exit(code: int) -> NoReturn:
    if is_primary() and _num_processes() > 1:
        # The store ends with this process, and JAX then aborts the others. They need the time to
        # read the message and to end.
        time.sleep(1)
    # A regular exit would wait for the other processes, which wait for this one, and for a
    # compilation.
    os._exit(code)


def _watch_the_primary(config: DistributedConfig, over: threading.Event) -> None:
    """Print a line if process 0 does not answer: JAX ends this process without naming it."""
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
    """Raise `DistributedError` if the port is taken; JAX would crash."""
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
