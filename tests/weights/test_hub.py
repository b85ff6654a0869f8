"""The hub, spoken to over loopback."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from resnet_jax import create_model, load_weights
from tests.golden import golden

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """What the hub holds, by repository and file."""
    from safetensors.numpy import save

    return {
        "timm/resnet18.test/model.safetensors": save(golden.state_dict("resnet18")),
        "timm/old/pytorch_model.bin": b"weights of long ago",
        "timm/empty/README.md": b"no weights",
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            repository, _, name = self.path.lstrip("/").partition("/resolve/main/")
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
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch_in_process(reference: str, endpoint: str, home: Path, **more: str) -> str:
    """The path that `fetch` returns, or its error; the hub's library reads the environment once."""
    code = (
        "import sys\n"
        "from resnet_jax.weights.hub import fetch\n"
        "try:\n    print(fetch(sys.argv[1]))\n"
        "except ValueError as error:\n    print('error:', error)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, reference],
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


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf://timm/unheard_of", "the hub has no such repository, or it is private"),
        ("hf://timm/empty", "neither model.safetensors nor pytorch_model.bin is in the repository"),
    ],
)
def test_what_is_not_there_is_named(hub: str, tmp_path: Path, reference: str, message: str) -> None:
    assert fetch_in_process(reference, hub, tmp_path).startswith(f"error: {reference}: {message}")


def test_offline_and_not_cached_is_said(tmp_path: Path) -> None:
    line = fetch_in_process(
        "hf://timm/resnet18.test", "http://127.0.0.1:1", tmp_path, HF_HUB_OFFLINE="1"
    )
    assert "not in the cache" in line


@pytest.mark.parametrize("reference", ["hf://resnet50", "hf://a/b/c", "hf:/timm/resnet50"])
def test_a_malformed_reference_is_answered_with_the_form(reference: str) -> None:
    with pytest.raises(ValueError, match=r"not of the form hf://owner/repository"):
        load_weights(create_model("resnet18"), reference)
