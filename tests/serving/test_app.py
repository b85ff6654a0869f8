"""What the server answers to right and to wrong requests."""

import base64
import io
import json
import logging
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from resnet_jax.serving.access import JsonFormatter
from tests.serving.stub import COLORS, changed, image_file, serving, wait_until_ready

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def classes(predictions: Sequence[dict[str, Any]]) -> list[str]:
    return [prediction["class_name"] for prediction in predictions]


def many_scans() -> bytes:
    """Return a JPEG file whose only scan is repeated."""
    data = image_file(kind="JPEG")
    start = data.index(b"\xff\xda")
    return data[:start] + 101 * data[start:-2] + data[-2:]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_body_is_an_image(client: TestClient, kind: str) -> None:
    answer = client.post("/predict", content=image_file("green", kind=kind))
    assert answer.status_code == 200
    assert answer.json()["model"] == "colors"
    (image,) = answer.json()["images"]
    assert image["file"] is None
    assert classes(image["predictions"])[0] == "green"
    assert image["predictions"][0]["class_index"] == 1
    shares = [p["probability"] for p in image["predictions"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)


def test_a_form_has_several_images(client: TestClient) -> None:
    files = [("any", (f"{color}.png", image_file(color))) for color in COLORS]
    answer = client.post("/predict?top=1", files=files, data={"comment": "ignored"}).json()
    assert [image["file"] for image in answer["images"]] == ["red.png", "green.png", "blue.png"]
    assert [classes(image["predictions"]) for image in answer["images"]] == [
        ["red"],
        ["green"],
        ["blue"],
    ]


def test_more_classes_than_there_are(client: TestClient) -> None:
    answer = client.post("/predict?top=1000", content=image_file()).json()
    assert len(answer["images"][0]["predictions"]) == 3


@pytest.mark.parametrize("top", ["0", "-1", "x", "", "1.5", "\u0663", "9" * 30])
def test_top_must_be_a_number(client: TestClient, top: str) -> None:
    answer = client.post("/predict", params={"top": top}, content=image_file())
    assert answer.status_code == 400
    assert answer.json() == {"error": "top must be a whole number, at least 1"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the body is empty"),
        (b"no image", "the image cannot be read: no whole image, 8 bytes"),
        # Pillow would give it to Ghostscript.
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "the image cannot be read: no whole image, 47 bytes",
        ),
        (image_file()[:60], "the image cannot be read: no whole image, 60 bytes"),
        (image_file(kind="JPEG")[:300], "the image cannot be read: no whole image, 300 bytes"),
        (many_scans(), "a JPEG file with more than 100 scans is not read"),
        (b"\xff\xd8\xff" + bytes(99), "the image cannot be read: no whole image, 102 bytes"),
    ],
    ids=["empty", "text", "eps", "png", "jpeg", "scans", "header"],
)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_damaged_image_is_refused(
    client: TestClient, path: str, data: bytes, reason: str
) -> None:
    answer = client.post(path, content=data)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)


def test_the_damaged_one_of_several_images_is_named(client: TestClient) -> None:
    files = [("i", ("good.png", image_file())), ("i", ("bad.png", b"\xff\xd8\xff"))]
    answer = client.post("/predict", files=files)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(
        "image 2 (bad.png): the image cannot be read: no whole image"
    )


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("multipart/form-data", b"", "Missing boundary in multipart."),
        ("multipart/form-data; boundary=x", b"--y\r\n", "Invalid multipart data."),
        ("multipart/form-data; boundary=x", b"--x--\r\n", "the form has no file"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--x--\r\n',
            "the form has no file",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n\r\n--x--\r\n',
            "the image cannot be read: no whole image, 0 bytes",
        ),
    ],
)
def test_a_wrong_form_is_refused(
    client: TestClient, content_type: str, body: bytes, reason: str
) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)


def test_an_explanation_shows_where_the_class_is(client: TestClient) -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:, 2] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    answer = client.post("/explain", content=file.getvalue()).json()
    assert classes(answer["predictions"])[0] == "blue"
    assert answer["explained"] == answer["predictions"][0]
    start, _, data = answer["overlay"].partition(",")
    assert start == "data:image/jpeg;base64"
    overlay = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), int)
    assert overlay.shape == (40, 80, 3)
    # The network sees columns 20 to 59. The hot half of them is yellow, the cold one unchanged.
    assert np.ptp(overlay[:, 24:36]) < 30
    assert (overlay[10:30, 46:56, 0] > 150).all()


def test_an_explanation_can_be_of_any_class_and_an_image(client: TestClient) -> None:
    for target in ("green", "1"):
        answer = client.post("/explain", params={"target": target, "top": 1}, content=image_file())
        assert answer.json()["explained"]["class_name"] == "green"
        assert classes(answer.json()["predictions"]) == ["red"]
    headers = {"Accept": "image/jpeg"}
    answer = client.post("/explain", content=image_file(size=(300, 10)), headers=headers)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (300, 10)


def test_overlays_of_large_images_are_small() -> None:
    limits = {"pixels": 10**7, "body_bytes": 10**6, "images": 1, "waiting": 1, "seconds": 60.0}
    from resnet_jax.serving import Limits

    with serving(limits=Limits(**limits)) as client:  # pyrefly: ignore
        for size in ((2048, 1024), (4000, 1), (1, 4000)):
            data = image_file(size=size)
            answer = client.post("/explain", content=data, headers={"Accept": "image/jpeg"})
            drawn = Image.open(io.BytesIO(answer.content))
            assert max(drawn.size) == 1024


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("rde", "there is no class 'rde': did you mean red"),
        ("3", "the classes have the numbers 0 to 2, but target is 3"),
        ("9" * 5000, ""),
    ],
)
def test_a_class_must_exist(client: TestClient, target: str, reason: str) -> None:
    answer = client.post("/explain", params={"target": target}, content=image_file())
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)


def test_a_network_without_gradients_explains_nothing() -> None:
    with serving(changed(heat=None)) as client:
        answer = client.post("/explain", content=image_file())
        assert answer.status_code == 404
        assert "has no gradients" in answer.json()["error"]
        assert client.post("/predict", content=image_file()).status_code == 200
        assert "show-heat" not in client.get("/").text.partition("<script>")[0]


def test_one_image_is_explained_at_a_time(client: TestClient) -> None:
    files = [("i", ("a.png", image_file())), ("i", ("b.png", image_file()))]
    assert client.post("/explain", files=files).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("GET", "/nothing", 404), ("PUT", "/", 405), ("POST", "/", 405)],
)
def test_other_addresses_are_refused_in_json(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_readiness_waits_for_every_program() -> None:
    sizes, opened = [], threading.Event()

    def slow(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        assert opened.wait(300)
        return np.ones((len(images), 3), np.float32) / 3

    announced = threading.Event()
    model = changed(probabilities=slow)
    with serving(model, ready=False, max_batch=6, on_ready=announced.set) as client:
        assert client.get("/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", "/v2/models/colors/ready"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "is being compiled" in answer.json()["error"]
        assert client.post("/predict", content=image_file()).status_code == 503
        assert "resnet_jax_ready 0.0" in client.get("/metrics").text
        assert not announced.is_set()
        opened.set()
        wait_until_ready(client)
        # The last one is for explanations.
        assert sizes == [1, 2, 4, 6, 1]
        assert announced.is_set()
        assert client.get("/v2/models/colors/ready").status_code == 200


def test_an_export_for_one_size_of_batch_gets_no_other() -> None:
    sizes = []

    def fixed(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return np.ones((len(images), 3), np.float32) / 3

    with serving(changed(probabilities=fixed, batch_size=5)) as client:
        assert client.post("/predict", content=image_file()).status_code == 200
        assert client.post("/explain", content=image_file()).status_code == 200
    assert set(sizes) == {5}


def test_a_network_that_cannot_run_is_reported() -> None:
    def broken(images: np.ndarray) -> np.ndarray:
        raise MemoryError(len(images))

    failures: list[Exception] = []
    with serving(changed(probabilities=broken), ready=False, on_failure=failures.append) as client:
        while not failures:
            time.sleep(0.01)
        assert client.get("/v2/health/ready").status_code == 503
    assert isinstance(failures[0], MemoryError)


def test_a_failure_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    healthy = True

    def failing(images: np.ndarray) -> np.ndarray:
        if not healthy:
            raise RuntimeError("/home/me/secret.py is broken")
        return np.ones((len(images), 3), np.float32) / 3

    with serving(changed(probabilities=failing)) as client, caplog.at_level(logging.INFO):
        healthy = False
        answer = client.post("/predict", content=image_file())
        assert answer.status_code == 500
        assert answer.json() == {"error": "the server has failed"}
        healthy = True
        assert client.post("/predict", content=image_file()).status_code == 200
    records = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    failure = next(record for record in records if record["level"] == "error")
    assert failure["request"] == answer.headers["X-Request-Id"]
    assert "/home/me/secret.py is broken" in failure["trace"]


def test_requests_are_logged_in_json(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "resnet_jax.serving"):
        answer = client.post("/predict?top=1", content=b"no\nimage")
    (record,) = caplog.records
    line = JsonFormatter().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", fields["time"])
    assert fields["request"] == answer.headers["X-Request-Id"]
    assert [fields[name] for name in ("method", "path", "status")] == ["POST", "/predict", 400]
    assert fields["seconds"] >= 0


def test_metrics_count_requests_images_and_batches() -> None:
    with serving() as client:
        client.post("/predict", content=image_file())
        client.post("/predict", files=[("i", ("a", image_file())), ("i", ("b", image_file()))])
        client.post("/predict", content=b"no image")
        client.get("/nothing/1")
        client.get("/nothing/2")
        answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    text = answer.text
    assert 'resnet_jax_requests_total{endpoint="predict",status="200"} 2.0' in text
    assert 'resnet_jax_requests_total{endpoint="predict",status="400"} 1.0' in text
    assert 'resnet_jax_requests_total{endpoint="none",status="404"} 2.0' in text
    assert "resnet_jax_images_total 3.0" in text
    assert "resnet_jax_batch_images_sum 3.0" in text
    assert 'resnet_jax_request_seconds_count{endpoint="predict"} 3.0' in text


TOKEN = "a-token-of-many-characters"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        (f"Bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer t\u00f6ken".encode("latin-1"), 401),
    ],
)
def test_a_token_is_required(header: str | bytes | None, status: int) -> None:
    with serving(token=TOKEN) as client:
        headers: Any = {} if header is None else {"Authorization": header}
        answer = client.post("/predict", content=image_file(), headers=headers)
        assert answer.status_code == status
        if status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for path in ("/metrics", "/model", "/v2", "/nothing"):
            assert (client.get(path, headers=headers).status_code == 401) == (status == 401)
        # A load balancer has no token, and the page asks for it.
        for path in ("/", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        assert 'type="password"' in client.get("/").text


def test_other_pages_may_use_the_server_only_if_they_are_named(client: TestClient) -> None:
    origin = {"Origin": "https://example.org"}
    preflight = {
        **origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    allow = "Access-Control-Allow-Origin"
    assert client.options("/predict", headers=preflight).status_code == 405
    assert allow not in client.post("/predict", content=image_file(), headers=origin).headers
    with serving(origins=["https://example.org"], token=TOKEN) as named:
        assert named.options("/predict", headers=preflight).headers[allow] == origin["Origin"]
        other = {**preflight, "Origin": "https://example.com"}
        assert named.options("/predict", headers=other).status_code == 400
        headers = {**origin, "Authorization": f"Bearer {TOKEN}"}
        answer = named.post("/predict", content=image_file(), headers=headers)
        assert answer.headers[allow] == origin["Origin"]


def test_the_page_allows_its_own_scripts_alone(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert policy.count("'sha256-") == answer.text.count("<script>") + answer.text.count("<style>")
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_names_are_escaped_in_the_page() -> None:
    with serving(changed(name="<b>&</b>")) as client:
        assert "<h1>&lt;b&gt;&amp;&lt;/b&gt;</h1>" in client.get("/").text


def test_the_network_is_described(client: TestClient) -> None:
    answer = client.get("/model").json()
    assert answer["class_names"] == list(COLORS)
    assert answer["preprocessing"]["image_size"] == 8
