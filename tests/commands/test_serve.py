"""The command that serves a network: its mistakes, and a process from its start to its end."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from resnet_jax import Classifier
from resnet_jax.commands.main import main
from resnet_jax.commands.serve import TOKEN_VARIABLE
from tests.commands.conftest import CLASSES
from tests.serving.stub import image_file

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "serving.md"
INPUT = "images"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return what the command says about a mistake."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", *argv])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-batch", "0"], "--max-batch must be positive, but it is 0"),
        (["--timeout", "inf"], "--timeout must be from 0 to 3600 seconds, but it is inf"),
        (["--max-delay", "-1"], "--max-delay must be from 0 to 1000 milliseconds, but it is -1"),
        (["--port", "70000"], "--port must be from 0 to 65535, but it is 70000"),
        (["--max-images", "65"], "raise it or lower --max-images"),
        (["--token-file", "absent"], "absent cannot be read: No such file or directory"),
        (["--host", "203.0.113.1"], "the server cannot listen at 203.0.113.1, port 8000"),
        (["--port", "0"], "absent"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in refused(capsys, "absent", *options)


def test_options_of_classifiers_are_not_for_exports(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "small.onnx", "--backend", "onnxruntime")
    assert message == "error: small.onnx is an export; leave out --model and --backend\n"


def test_a_port_that_is_taken_is_reported_before_the_network_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refused(capsys, "absent", "--port", str(port))
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in message


@pytest.mark.parametrize("token", ["short", "", "\u00e9" * 20])
def test_a_token_must_be_hard_to_guess(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    token: str,
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    wanted = f"the token in {TOKEN_VARIABLE} must have at least 16 characters"
    message = refused(capsys, "absent")
    assert wanted in message
    assert not token or token not in message
    file = tmp_path / "token"
    file.write_text(token, "utf-8")
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token-of-many-characters")
    assert str(file) in refused(capsys, "absent", "--token-file", str(file))


class Server:
    """A process that serves a network.

    Attributes:
        port: Where it listens.
        lines: What it has written to the error stream so far.
    """

    def __init__(self, *argv: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "resnet_jax", "serve", *argv, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.process.stdout is not None
        # The address is printed when the server is ready.
        self.announcement = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)$", self.announcement.strip())
        assert found, self.lines
        self.port = int(found[1])

    def end(self) -> int:
        """Return the exit code."""
        code = self.process.wait(300)
        self._reader.join()
        return code

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines += self.process.stderr


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    options = ["--max-batch", "2", "--max-megabytes", "1", "--name", "tiny"]
    server = Server(str(repository), *options)
    yield server
    server.process.kill()
    server.process.wait()


def test_the_address_is_announced_when_the_server_is_ready(server: Server) -> None:
    assert server.announcement == f"serving tiny at http://127.0.0.1:{server.port}\n"
    connection = server.connect()
    connection.request("GET", "/v2/health/ready")
    assert connection.getresponse().status == 200


def test_predictions_are_those_of_the_classifier(server: Server, repository: Path) -> None:
    connection, data = server.connect(), image_file("blue", kind="JPEG")
    connection.request("POST", "/predict?top=3", data)
    answer = json.loads(connection.getresponse().read())
    predicted = {p["class_name"]: p["probability"] for p in answer["images"][0]["predictions"]}
    expected = Classifier.from_pretrained(repository)(data)[0]
    assert predicted == pytest.approx(dict(zip(CLASSES, expected, strict=True)), rel=1e-4)


def test_a_wrong_form_is_answered(server: Server) -> None:
    connection = server.connect()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/predict", b"--y", headers)
    assert connection.getresponse().status == 400


def test_a_large_body_is_answered_and_the_connection_stays(server: Server) -> None:
    connection = server.connect()
    for _ in range(2):
        connection.request("POST", "/predict", bytes(3 * 2**20))
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["error"] == "the body is larger than 1,048,576 bytes"


def test_tritons_client_can_use_the_server(server: Server, repository: Path) -> None:
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}")
    with contextlib.closing(client):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert not client.is_model_ready("huge")
        assert client.get_server_metadata()["name"] == "resnet_jax"
        (tensor,) = client.get_model_metadata("tiny")["inputs"]
        assert tensor == {"name": INPUT, "datatype": "UINT8", "shape": [-1, 32, 32, 3]}
        images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
        expected = Classifier.from_pretrained(repository)(images)
        for binary in (True, False):
            given = tritonclient.http.InferInput(INPUT, [3, 32, 32, 3], "UINT8")
            given.set_data_from_numpy(images, binary_data=binary)
            asked = tritonclient.http.InferRequestedOutput("probabilities", binary_data=binary)
            for outputs in (None, [asked]):
                result = client.infer("tiny", [given], outputs=outputs, request_id="7")
                assert result.get_response()["id"] == "7"
                found = result.as_numpy("probabilities")
                assert found is not None
                np.testing.assert_allclose(found, expected, rtol=1e-4)
        named = tritonclient.http.InferRequestedOutput("probabilities", class_count=1)
        result = client.infer("tiny", [given], outputs=[named])
        texts = result.as_numpy("probabilities")
        assert texts is not None
        best = [text.decode().split(":")[2] for text in texts.ravel()]
        assert best == [CLASSES[k] for k in expected.argmax(axis=1)]
        wrong = tritonclient.http.InferInput(INPUT, [1, 8, 8, 3], "UINT8")
        wrong.set_data_from_numpy(np.zeros((1, 8, 8, 3), np.uint8))
        with pytest.raises(InferenceServerException, match=r"must have the shape \[N, 32, 32, 3\]"):
            client.infer("tiny", [wrong])


def test_the_commands_of_the_documentation_run(server: Server, tmp_path: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    (tmp_path / "cat.jpg").write_bytes(image_file(kind="JPEG"))
    (tmp_path / "dog.png").write_bytes(image_file("blue"))
    lines = [
        "set -eo pipefail",
        'curl() { command curl --silent --show-error --fail-with-body "$@"; }',
        f'python() {{ {sys.executable} "$@"; }}',
        *(
            block.replace(":8000", f":{server.port}").replace("resnet50", "tiny")
            for block in blocks
        ),
    ]
    process = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr + process.stdout
    assert process.stdout.endswith("(2, 3)\n")
    assert (tmp_path / "heat.jpg").read_bytes().startswith(b"\xff\xd8\xff")


# The last test of this server.
def test_sigterm_lets_the_requests_finish(server: Server) -> None:
    data = image_file()
    connection, idle = server.connect(), server.connect()
    idle.request("GET", "/v2/health/live")
    idle.getresponse().read()
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(len(data)))
    connection.endheaders(data[:10])
    # Once this is answered, the first half has arrived, too.
    other = server.connect()
    other.request("GET", "/metrics")
    while b"resnet_jax_waiting_images 1.0" not in other.getresponse().read():
        other.request("GET", "/metrics")
    server.process.send_signal(signal.SIGTERM)
    # The server listens no more, and closes the idle connections.
    assert idle.sock.recv(1) == b""
    with pytest.raises(OSError, match="refused"):
        server.connect().connect()
    connection.send(data[10:])
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["model"] == "tiny"
    assert server.end() == 0
    *requests, last = server.lines
    assert last == "stopped after answering all requests\n"
    records = [json.loads(line) for line in requests]
    assert {"time", "request", "method", "path", "status", "seconds"} <= set(records[-1])
    # Nothing else was logged, also for requests that were wrong.
    assert {record["message"] for record in records} == {"request"}
    assert {200, 400, 413} <= {record["status"] for record in records}
