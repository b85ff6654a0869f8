"""Serve a network over HTTP, with a page on which images can be dropped."""

import dataclasses
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resnet_jax.commands.arguments import UsageError, parse_options
from resnet_jax.commands.interrupts import Interrupted, Interrupts
from resnet_jax.commands.run_directory import as_file_name

if TYPE_CHECKING:
    from resnet_jax.serving import Model

# The name of the variable is no secret.
TOKEN_VARIABLE = "RESNET_JAX_TOKEN"  # noqa: S105
# Fewer characters can be guessed.
_SHORTEST_TOKEN = 16


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Serve a network over HTTP, with a page on which images can be dropped.

    The server listens before its programs are compiled, and http://HOST:PORT/v2/health/ready
    answers 200 as soon as it can predict. Addresses and formats are described in docs/serving.md.

    If the environment variable RESNET_JAX_TOKEN is set, or --token-file is given, only requests
    with the header "Authorization: Bearer TOKEN" are answered. Each request is logged as one line
    of JSON on the error stream.

    After Ctrl-C or SIGTERM the server answers the requests that it has, and its exit code is 0. The
    exit code is 1 if the network cannot be run, and 2 after a mistake.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|EXPORT")]
    """The network: a run directory or a checkpoint, an export (.onnx or .stablehlo), the name of
    published weights such as resnet50.a1_in1k, a repository such as hf://microsoft/resnet-50 or a
    copy of one, or a file of weights together with --model."""
    model: str | None = None
    """Name of the network of a file of weights, such as resnet50, or resnet50.tv2_in1k to use the
    preprocessing of these published weights as well."""
    name: str | None = None
    """Name of the network in addresses and answers. By default it is the last part of RUN."""
    backend: Literal["jax", "onnxruntime"] = "jax"
    """What computes the network. onnxruntime is faster on many CPUs. Explanations are always
    computed by JAX. An export has its own: onnxruntime for .onnx, and JAX for .stablehlo."""
    host: str = "127.0.0.1"
    """Address at which the server listens. By default, only programs on this machine can reach it.
    0.0.0.0 lets other machines reach it as well."""
    port: int = 8000
    """Port at which the server listens. 0 chooses a free one."""
    max_batch: int | None = None
    """Largest number of images that the network computes at once. By default it is 16 on CPUs and
    64 elsewhere."""
    max_delay: float = 5.0
    """Longest time in milliseconds for which an image waits for others, to be computed together,
    if the network is idle."""
    max_megabytes: int = 16
    """Largest size of the body of a request, in units of 1,048,576 bytes."""
    max_pixels: int = 50_000_000
    """Largest number of pixels of an image. Larger images are refused, because a small file can
    announce so many pixels that the memory does not suffice."""
    max_images: int = 16
    """Largest number of images in a request."""
    max_waiting: int = 64
    """Largest number of images in all requests that have not been answered. Requests above it are
    answered with 503 at once."""
    timeout: float = 15.0
    """Longest time in seconds for receiving the body of a request, and again for answering it."""
    token_file: Path | None = None
    """File with the token that requests must have. It takes precedence over RESNET_JAX_TOKEN."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages on other servers that may use this one, such as https://example.org. By
    default, browsers refuse it to all of them."""


def run(argv: list[str], prog: str) -> int:
    """Serve until a signal ends the server, and return the exit code, see `Arguments`."""
    arguments = parse_options(Arguments, argv, prog=prog)
    _check(arguments)
    token = _token(arguments.token_file)
    import uvicorn  # noqa: F401  # Its absence is reported before the network is loaded.

    with Interrupts():
        try:
            with _bind(arguments.host, arguments.port) as listener:
                return _serve(arguments, token, listener)
        except Interrupted as stop:
            return stop.report()


def _check(arguments: Arguments) -> None:
    """Raise `UsageError` for mistakes that need no network."""
    source = Path(arguments.run).expanduser()
    is_export = source.suffix in (".onnx", ".stablehlo")
    if arguments.model is None and source.is_file() and not is_export:
        raise UsageError(
            f"{arguments.run}: a file of weights does not name its network; add its name, such as "
            "--model resnet50"
        )
    if is_export and (arguments.model is not None or arguments.backend != "jax"):
        raise UsageError(f"{arguments.run} is an export; leave out --model and --backend")
    for option in ("max_batch", "max_megabytes", "max_pixels", "max_images"):
        value = getattr(arguments, option)
        if value is not None and not value > 0:
            raise UsageError(f"--{option.replace('_', '-')} must be positive, but it is {value}")
    if not 0 < arguments.timeout <= 3600:
        raise UsageError(
            f"--timeout must be from 0 to 3600 seconds, but it is {arguments.timeout:g}"
        )
    if not 0 <= arguments.max_delay <= 1000:
        raise UsageError(
            f"--max-delay must be from 0 to 1000 milliseconds, but it is {arguments.max_delay:g}"
        )
    if not 0 <= arguments.port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535, but it is {arguments.port}")
    if arguments.max_waiting < arguments.max_images:
        raise UsageError(
            f"--max-waiting is {arguments.max_waiting}, but a request may have "
            f"{arguments.max_images} images; raise it or lower --max-images"
        )


def _token(file: Path | None) -> str | None:
    """Return the token that requests must have, or None if they need none."""
    if file is None:
        token, source = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if token is None:
            return None
    else:
        source = str(file)
        try:
            token = file.expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise UsageError(f"{file} cannot be read: {reason}") from None
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"the token in {source} must have at least {_SHORTEST_TOKEN} characters, all of them "
            "ASCII; make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, and does not listen yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"the server cannot listen at {host}, port {port}: {reason}; choose another --port or "
            "--host"
        ) from None
    return listener


def _serve(arguments: Arguments, token: str | None, listener: socket.socket) -> int:
    import uvicorn

    from resnet_jax.inference.stream import default_batch_size
    from resnet_jax.serving import create_app
    from resnet_jax.serving.limits import Limits

    limits = Limits(
        body_bytes=arguments.max_megabytes * 2**20,
        pixels=arguments.max_pixels,
        images=arguments.max_images,
        waiting=arguments.max_waiting,
        seconds=arguments.timeout,
    )
    model = _load(arguments)
    _log_as_json()
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(
        model,
        limits,
        max_batch=arguments.max_batch or default_batch_size(),
        max_delay=arguments.max_delay / 1000,
        token=token,
        origins=arguments.cors_origins,
        on_ready=lambda: _announce(model, listener),
        on_failure=stop,
    )
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Both limits of time may be used up, and the answer has to be sent.
        timeout_graceful_shutdown=int(2 * limits.seconds) + 5,
    )
    server = uvicorn.Server(config)
    if arguments.host not in ("127.0.0.1", "localhost", "::1") and token is None:
        print(
            "warning: everyone who can reach this machine can use the server; set "
            f"{TOKEN_VARIABLE} to ask for a token",
            file=sys.stderr,
        )
    try:
        server.run(sockets=[listener])
    except Interrupted:
        print("stopped after answering all requests", file=sys.stderr)
    if failures:
        print(f"error: the network cannot be run: {failures[0]}", file=sys.stderr)
        return 1
    return 0


def _load(arguments: Arguments) -> "Model":
    import numpy as np

    from resnet_jax.serving.opening import open_model

    name = as_file_name(arguments.name or arguments.run.partition("@")[0])
    try:
        model = open_model(arguments.run, arguments.model, name=name, backend=arguments.backend)
        # A package that the preprocessing needs may be missing.
        model.preprocessing.on_host(np.zeros((8, 8, 3), np.uint8))
    except ModuleNotFoundError:
        raise
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    return model


def _log_as_json() -> None:
    """Write all logs and warnings to the error stream, a line of JSON for each of them."""
    from resnet_jax.serving.access import JsonFormatter, logger

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)
    logger.setLevel(logging.INFO)
    # It warns of every wrong form, which is answered with 400.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def _announce(model: "Model", listener: socket.socket) -> None:
    host, port, *_ = listener.getsockname()
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"serving {model.name} at http://{address}", flush=True)
