"""Random requests, right and wrong in many ways."""

import json
from typing import Any

import numpy as np
from hypothesis import strategies as st
from starlette.testclient import TestClient

from resnet_jax.serving.protocol import LENGTH_HEADER
from tests.serving.stub import image_file

FILES = [
    image_file(kind=kind, size=size)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
    for size in ((17, 9), (1, 300), (600, 200))
]
_TEXT = st.text(max_size=20)
_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Return an image file with some bytes changed, removed or repeated."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        change = draw(st.sampled_from(("flip", "cut", "repeat", "number")))
        if change == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 1 + len(data)))]
        elif change == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        elif change == "number":
            data[at : at + 4] = draw(st.sampled_from((b"\0\0\0\0", b"\xff\xff\xff\xff")))
    return bytes(data)


_BODIES = damaged_files() | st.binary(max_size=200)
_PART_HEADER = (
    (b"Content-Disposition: form-data; ", b"Content-Type: ", b": "),
    (b'name="a"', b"name=", b"", b"name*=utf-8''a", b'name="\xff"'),
    (b'; filename="a.png"', b"; filename=", b"", b'; filename="../a"'),
)


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a form, whose syntax may be wrong."""
    boundary = draw(st.sampled_from((b"x", b"x" * 80, b"--", b"\xff")))
    lines = []
    for _ in range(draw(st.integers(0, 5))):
        name = draw(
            st.sampled_from((b'name="a"', b"name=", b"", b"name*=utf-8''a", b'name="\xff"'))
        )
        file = draw(
            st.sampled_from((b'; filename="a.png"', b"; filename=", b"", b'; filename="../a"'))
        )
        kind = draw(
            st.sampled_from((b"Content-Disposition: form-data; ", b"Content-Type: ", b": "))
        )
        lines += [b"--" + boundary, kind + name + file, b"", draw(_BODIES)]
    lines += [b"--" + boundary + draw(st.sampled_from((b"--", b"", b"-")))]
    body = draw(st.sampled_from((b"\r\n", b"\r\n", b"\n"))).join(lines)
    charset = draw(st.sampled_from(("", "; charset=utf-16", "; charset=none")))
    shown = draw(st.sampled_from((boundary.decode("latin-1"), "y", "")))
    return body, {"Content-Type": f"multipart/form-data; boundary={shown}{charset}"}


@st.composite
def tensors(draw: st.DrawFn, image_shape: tuple[int, ...]) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a request for inference."""
    count = draw(st.integers(0, 5))
    pixels = np.zeros((count, *image_shape), np.uint8)
    tensor: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape)}
    data = b""
    if draw(st.booleans()):
        data = pixels.tobytes()
        tensor["parameters"] = {"binary_data_size": len(data)}
    else:
        tensor["data"] = pixels.tolist()
    request: dict[str, Any] = {"inputs": [tensor]}
    if draw(st.booleans()):
        request["outputs"] = [{"name": "probabilities", "parameters": draw(_JSON)}]
    for part in (request, tensor):
        if draw(st.booleans()):
            key = draw(st.sampled_from([*part, "id", "parameters", "data"]))
            part[key] = draw(_JSON)
    text = json.dumps(request).encode()
    length = len(text) + draw(st.sampled_from((0, 0, 0, -1, 1, 10**9)))
    header = draw(st.sampled_from((str(length), str(length), "x", "")))
    if draw(st.booleans()):
        text = text[: draw(st.integers(0, len(text)))]
    return text + data, {LENGTH_HEADER: header} if data or draw(st.booleans()) else {}


_QUERIES = st.dictionaries(st.sampled_from(("top", "target", "x")), _TEXT | st.just("1"))
_HEADERS = st.dictionaries(
    st.sampled_from(
        ("Content-Type", "Content-Encoding", "Content-Length", "Accept", "Authorization", "Origin")
    ),
    st.sampled_from(
        ("", "x", "identity", "gzip", "5", "-5", "image/png", "multipart/form-data", "\xe9\xff")
    ),
    max_size=2,
)
PATHS = (
    "/",
    "/model",
    "/metrics",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/x",
    "/v2/models/%00/ready",
    "/predict/",
    "//predict",
    "/..%2f",
)


@st.composite
def requests(
    draw: st.DrawFn, model: str, image_shape: tuple[int, ...]
) -> tuple[str, str, dict[str, Any]]:
    """Return the method, the path and the rest of a request."""
    infer = f"/v2/models/{model}/infer"
    path = draw(
        st.sampled_from(("/predict", "/predict", "/explain", "/explain", infer, infer, "*"))
    )
    if path == "*":
        path = draw(st.sampled_from(PATHS))
    content = draw(
        tensors(image_shape) if path == infer else forms() | st.tuples(_BODIES, st.just({}))
    )
    headers = {**content[1], **draw(st.just({}) | _HEADERS)}
    method = draw(st.sampled_from(("POST",) * 8 + ("GET", "PUT", "HEAD", "OPTIONS")))
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    rest = {"content": content[0], "headers": encoded, "params": draw(_QUERIES)}
    return method, path, rest


def check(client: TestClient, request: tuple[str, str, dict[str, Any]]) -> int:
    """Send a request, and return the status. It must be an intended one, with a reason."""
    method, path, rest = request
    answer = client.request(method, path, **rest)
    assert answer.status_code in (200, 400, 404, 405, 413, 415), (request, answer.text)
    if answer.status_code != 200 and method != "HEAD":
        assert answer.json()["error"], request
        assert "Traceback" not in answer.text
        assert ".py" not in answer.text, answer.text
    return answer.status_code
