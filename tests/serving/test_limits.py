"""Limits hold before a request is read, and while it is."""

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
from starlette.testclient import TestClient

from resnet_jax.serving import Limits, Model, create_app
from tests.serving.stub import LIMITS, MODEL, changed, image_file, probabilities, run_alone, serving


class Answer(NamedTuple):
    """Status, headers and reason of an answer, and the bytes that were received before."""

    status: int
    headers: dict[str, str]
    error: str
    received: int


def post(
    headers: dict[str, str],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    limits: Limits = LIMITS,
    path: str = "/predict",
) -> Answer:
    """Return the answer to a request whose body is received message by message."""
    app = create_app(MODEL, limits)
    received, sent = 0, []

    async def count() -> dict[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message["body"])
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        async with app.router.lifespan_context(app):
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/v2/health/ready",
                "query_string": b"",
                "headers": [],
            }
            while not sent or sent[0]["status"] != 200:
                sent.clear()
                await app(dict(scope), count, send)
                await asyncio.sleep(0.01)
            sent.clear()
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await app({**scope, "method": "POST", "path": path, "headers": raw}, count, send)

    run_alone(main())
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, json.loads(sent[1]["body"])["error"], received)


async def endless() -> dict[str, Any]:
    return {"type": "http.request", "body": bytes(1000), "more_body": True}


async def silent() -> dict[str, Any]:
    await asyncio.sleep(3600)
    raise AssertionError


@pytest.mark.parametrize("path", ["/predict", "/explain", "/v2/models/colors/infer"])
def test_a_large_body_is_not_read(path: str) -> None:
    answer = post({"Content-Length": "100001"}, endless, path=path)
    assert (answer.status, answer.received) == (413, 0)
    assert answer.error == "the body is larger than 100,000 bytes"


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_a_body_of_unknown_length_is_read_up_to_the_limit(kind: str) -> None:
    answer = post({"Content-Type": kind, "Transfer-Encoding": "chunked"}, endless)
    # Zeros are not a valid form, which is noticed earlier.
    assert answer.status == (413 if kind == "image/png" else 400)
    assert answer.received <= 101_000


def test_the_files_of_a_form_count_as_well() -> None:
    start = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    messages = iter([start])

    async def form() -> dict[str, Any]:
        return {"type": "http.request", "body": next(messages, bytes(1000)), "more_body": True}

    answer = post({"Content-Type": "multipart/form-data; boundary=x"}, form)
    assert answer.status == 413
    assert answer.received <= 101_000


@pytest.mark.parametrize("length", ["-1", "1e3", "", "\u0663", "9" * 5000])
def test_a_length_must_be_a_number(length: str) -> None:
    answer = post({"Content-Length": length}, endless)
    assert answer.status == (413 if length.startswith("9") else 400)
    assert answer.received == 0


def test_a_compressed_body_is_refused() -> None:
    answer = post({"Content-Encoding": "gzip"}, endless)
    assert (answer.status, answer.received) == (415, 0)


def test_a_body_must_arrive_in_time() -> None:
    answer = post({}, silent, dataclasses.replace(LIMITS, seconds=0.05))
    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    assert answer.error == "the body did not arrive within 0.05 seconds"


class Gate:
    """A network that waits at a gate once it is ready."""

    def __init__(self) -> None:
        self.closed, self.entered, self.opened = False, threading.Event(), threading.Event()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities."""
        if self.closed:
            self.entered.set()
            assert self.opened.wait(300)
        return probabilities(images)

    def model(self) -> Model:
        """Return the model."""
        return changed(probabilities=self)


def test_a_request_above_the_limit_is_refused_at_once() -> None:
    gate = Gate()
    limits = dataclasses.replace(LIMITS, images=2, waiting=2)
    with serving(gate.model(), limits) as client, ThreadPoolExecutor() as pool:
        gate.closed = True
        first = pool.submit(client.post, "/predict", content=image_file())
        assert gate.entered.wait(60)
        # Of two more images only one may wait.
        files = [("image", (f"{i}.png", image_file())) for i in range(2)]
        refused = client.post("/predict", files=files)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "too many images are waiting" in refused.json()["error"]
        second = pool.submit(client.post, "/predict", content=image_file())
        while "resnet_jax_waiting_images 2.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        assert client.post("/predict", content=image_file()).status_code == 503
        gate.opened.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        # Those that have been answered do not count.
        assert client.post("/predict", files=files).status_code == 200
        assert "resnet_jax_waiting_images 0.0" in client.get("/metrics").text


def test_an_answer_must_come_in_time() -> None:
    gate = Gate()
    with serving(gate.model(), dataclasses.replace(LIMITS, seconds=0.2)) as client:
        gate.closed = True
        answer = client.post("/predict", content=image_file())
        gate.opened.set()
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"


def test_the_number_of_files_is_limited(client: TestClient) -> None:
    files = [("image", (f"{i}.png", image_file())) for i in range(4)]
    answer = client.post("/predict", files=files)
    assert answer.status_code == 400
    assert answer.json()["error"] == "Too many files. Maximum number of files is 3."


def test_the_number_of_pixels_is_limited(client: TestClient) -> None:
    # A few hundred bytes that announce more pixels than allowed.
    data = image_file(size=(1000, 91))
    assert len(data) < 1000
    answer = client.post("/predict", content=data)
    assert (answer.status_code, answer.json()["error"]) == (413, "more than 90,000 pixels")
    assert client.post("/predict", content=image_file(size=(1000, 90))).status_code == 200


@pytest.mark.parametrize("field", ["body_bytes", "pixels", "images", "waiting", "seconds"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be positive, but it is 0"):
        dataclasses.replace(LIMITS, **{field: 0})


def test_a_request_may_not_have_more_images_than_may_wait() -> None:
    with pytest.raises(ValueError, match="may have 3 images, but only 2 may wait"):
        dataclasses.replace(LIMITS, waiting=2)
