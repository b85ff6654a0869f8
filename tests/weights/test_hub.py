"""Weights are downloaded from the hub; the tests use a server on the loopback interface."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from resnet_jax import create_model, load_weights
from resnet_jax.weights import hub as hub_module
from resnet_jax.weights.sources import read_source
from tests.golden import golden

COMMIT = "0123456789abcdef0123456789abcdef01234567"

SHARDS = {"x": "model-1-of-2.safetensors", "y": "model-2-of-2.safetensors"}


@contextmanager
def server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Return the content of the hub, from repository and file name to bytes."""
    from safetensors.numpy import save

    return {
        "timm/resnet18.test/model.safetensors": save(golden.state_dict("resnet18")),
        "timm/old/pytorch_model.bin": b"weights of long ago",
        "timm/sharded/model.safetensors.index.json": json.dumps({"weight_map": SHARDS}).encode(),
        **{
            f"timm/sharded/{file}": save({name: np.full(2, i, np.float32)})
            for i, (name, file) in enumerate(SHARDS.items())
        },
        "timm/empty/README.md": b"no weights",
        "timm/described/config.json": b'{"architecture": "resnet18"}',
        "timm/described/model.safetensors": b"",
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            path = self.path.replace(COMMIT, "main")
            repository, _, name = path.lstrip("/").partition("/resolve/main/")
            content = files.get(f"{repository}/{name}")
            if content is None:
                known = any(key.startswith(f"{repository}/") for key in files)
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                content = b""
            else:
                self.send_response(200)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Print nothing."""

    with server(Handler) as endpoint:
        yield endpoint


def fetch_in_process(
    reference: str, endpoint: str, home: Path, call: str = "fetch", *names: str, **more: str
) -> str:
    """Return the path that `fetch` or `fetch_first` returns, or its error, from a new process.

    The hub's library reads its environment variables only once, when it is imported.
    """
    # Only this module is imported, because importing JAX would take most of the time of each
    # process.
    code = (
        "import runpy, sys\n"
        "fetch = runpy.run_path(sys.argv[2])[sys.argv[3]]\n"
        "names = [sys.argv[4:]] if sys.argv[4:] else []\n"
        "try:\n    print(fetch(sys.argv[1], *names))\n"
        "except ValueError as error:\n    print('error:', error)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, reference, hub_module.__file__, call, *names],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **more},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (line,) = process.stdout.splitlines()
    return line


def test_weights_come_from_the_endpoint_and_then_from_the_cache(
    hub: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    reference = "hf://timm/resnet18.test"
    path = fetch_in_process(reference, hub, tmp_path)
    assert Path(path).read_bytes() == files["timm/resnet18.test/model.safetensors"]
    nowhere = "http://127.0.0.1:1"
    assert fetch_in_process(reference, nowhere, tmp_path, HF_HUB_OFFLINE="1") == path

    variables = load_weights(create_model("resnet18"), path)
    np.testing.assert_array_equal(
        variables["params"]["head"]["bias"], golden.state_dict("resnet18")["fc.bias"]
    )


def test_a_repository_without_safetensors_gives_its_pickle(hub: str, tmp_path: Path) -> None:
    path = fetch_in_process("hf://timm/old@main", hub, tmp_path)
    assert Path(path).read_bytes() == b"weights of long ago"


def test_all_files_of_an_index_are_fetched(hub: str, tmp_path: Path) -> None:
    path = fetch_in_process("hf://timm/sharded", hub, tmp_path)
    tensors = read_source(path)
    assert {name: list(tensors[name]) for name in tensors} == {"x": [0, 0], "y": [1, 1]}


def test_a_description_comes_with_the_weights_or_is_known_to_be_absent(
    hub: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    reference = "hf://timm/described"
    path = fetch_in_process(reference, hub, tmp_path, "fetch_first", "config.json")
    assert Path(path).read_bytes() == files["timm/described/config.json"]
    name = "preprocessor_config.json"
    assert fetch_in_process(reference, hub, tmp_path, "fetch_first", name) == "None"
    offline = fetch_in_process(reference, hub, tmp_path, "fetch_first", name, HF_HUB_OFFLINE="1")
    assert "preprocessor_config.json is not in the cache" in offline


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf://timm/unheard_of", "the hub has no such repository, or it is private or gated"),
        ("hf://timm/empty", "neither model.safetensors nor pytorch_model.bin is in the repository"),
    ],
)
def test_what_is_not_there_is_named(hub: str, tmp_path: Path, reference: str, message: str) -> None:
    assert fetch_in_process(reference, hub, tmp_path).startswith(f"error: {reference}: {message}")


def test_offline_and_not_cached_is_said(tmp_path: Path) -> None:
    line = fetch_in_process(
        "hf://timm/resnet18.test", "http://127.0.0.1:1", tmp_path, HF_HUB_OFFLINE="1"
    )
    assert "HF_HUB_OFFLINE is set and the weights are not in the cache" in line
    assert str(tmp_path) in line


@contextmanager
def silent_server() -> Iterator[str]:
    """Return the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_hub_that_cannot_be_reached_is_told_from_a_repository_that_does_not_exist(
    tmp_path: Path,
) -> None:
    line = fetch_in_process("hf://timm/resnet18.test", "http://127.0.0.1:1", tmp_path)
    assert line.startswith(
        "error: hf://timm/resnet18.test: the hub http://127.0.0.1:1 cannot be reached ("
    )
    assert "Connection refused" in line
    assert "not in the cache" in line
    assert line.endswith("give the path of the file")


def test_a_hub_that_is_silent_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    with silent_server() as endpoint:
        line = fetch_in_process(
            "hf://timm/resnet18.test", endpoint, tmp_path, HF_HUB_ETAG_TIMEOUT="1"
        )
    assert f"the hub {endpoint} cannot be reached (TimeoutError: no answer within 1 s)" in line


def test_the_cache_replaces_a_hub_that_cannot_be_reached(hub: str, tmp_path: Path) -> None:
    path = fetch_in_process("hf://timm/old", hub, tmp_path)
    assert fetch_in_process("hf://timm/old", "http://127.0.0.1:1", tmp_path) == path


def test_a_hub_that_fails_is_asked_once(tmp_path: Path) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Print nothing."""

    with server(Handler) as endpoint:
        line = fetch_in_process("hf://timm/resnet18.test", endpoint, tmp_path)
    assert f"the hub {endpoint} answers with an error (" in line
    assert "503" in line
    assert len(asked) == 1


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"resnet18\.a1_in1k needs .*: pip install '.*\[weights\]'"
    ):
        load_weights(create_model("resnet18"), "hf://timm/resnet18.a1_in1k")


@pytest.mark.parametrize("reference", ["hf://resnet50", "hf://a/b/c", "hf:/timm/resnet50"])
def test_a_malformed_reference_is_answered_with_the_form(reference: str) -> None:
    with pytest.raises(ValueError, match=r"not of the form hf://owner/repository"):
        load_weights(create_model("resnet18"), reference)
