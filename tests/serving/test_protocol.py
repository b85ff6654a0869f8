"""Requests and answers of the Open Inference Protocol, with tensors as JSON and as bytes."""

import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from resnet_jax.serving.protocol import LENGTH_HEADER
from tests.serving.stub import MODEL, probabilities

INFER = "/v2/models/colors/infer"
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)


def tensor(**fields: Any) -> dict[str, Any]:
    return {
        "name": "images",
        "datatype": "UINT8",
        "shape": [2, 8, 8, 3],
        "data": IMAGES.tolist(),
        **fields,
    }


def test_the_server_and_the_model_are_described(client: TestClient) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "classification"]
    for path in ("/v2/models/colors", "/v2/models/colors/versions/1"):
        assert client.get(path).json() == {
            "name": "colors",
            "versions": ["1"],
            "platform": "numpy",
            "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}],
            "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
        }
        assert client.get(f"{path}/ready").status_code == 200


@pytest.mark.parametrize("data", [IMAGES.tolist(), IMAGES.ravel().tolist()], ids=["nested", "flat"])
def test_tensors_in_json(client: TestClient, data: Any) -> None:
    request = {"id": "one", "inputs": [tensor(data=data)]}
    answer = client.post(INFER, json=request).json()
    assert (answer["model_name"], answer["id"]) == ("colors", "one")
    (output,) = answer["outputs"]
    assert [output[name] for name in ("name", "datatype", "shape")] == [
        "probabilities",
        "FP32",
        [2, 3],
    ]
    np.testing.assert_allclose(np.reshape(output["data"], (2, 3)), probabilities(IMAGES), rtol=1e-6)


def test_tensors_as_bytes(client: TestClient) -> None:
    header = tensor(parameters={"binary_data_size": IMAGES.size})
    del header["data"]
    output = {"name": "probabilities", "parameters": {"binary_data": True}}
    text = json.dumps({"inputs": [header], "outputs": [output]}).encode()
    answer = client.post(
        INFER, content=text + IMAGES.tobytes(), headers={LENGTH_HEADER: str(len(text))}
    )
    length = int(answer.headers[LENGTH_HEADER])
    (found,) = json.loads(answer.content[:length])["outputs"]
    assert found["parameters"] == {"binary_data_size": 2 * 3 * 4}
    values = np.frombuffer(answer.content[length:], "<f4").reshape(found["shape"])
    np.testing.assert_array_equal(values, probabilities(IMAGES))


def test_the_most_probable_classes_as_strings(client: TestClient) -> None:
    output = {"name": "probabilities", "parameters": {"classification": 2}}
    request = {"inputs": [tensor()], "outputs": [output]}
    (found,) = client.post(INFER, json=request).json()["outputs"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [2, 2])
    expected = probabilities(IMAGES)
    for text, row in zip(found["data"][::2], expected, strict=True):
        share, index, name = text.split(":")
        assert float(share) == pytest.approx(row.max(), abs=1e-6)
        assert int(index) == row.argmax()
        assert name == MODEL.class_names[row.argmax()]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"datatype": "FP32"}, "images must have the datatype UINT8"),
        ({"shape": [2, 8, 8]}, "images must have the shape [N, 8, 8, 3]"),
        ({"shape": [2, 8, 8, 4]}, "images must have the shape"),
        ({"shape": [0, 8, 8, 3]}, "images must have the shape"),
        ({"shape": [-1, 8, 8, 3]}, "images must have the shape"),
        ({"shape": []}, "images must have the shape"),
        ({"shape": "2"}, "images must have the shape"),
        ({"shape": [True, 8, 8, 3]}, "images must have the shape"),
        ({"shape": [10**300, 8, 8, 3]}, "a request can have at most 3 images"),
        ({"shape": [1, 8, 8, 3]}, "the data of images must be 192 whole numbers"),
        ({"data": None}, "the data of images must be 384 whole numbers"),
        ({"data": {}}, "the data of images must be"),
        ({"data": [[1], [1, 2]]}, "the data of images must be"),
        ({"data": [0.5] * 384}, "the data of images must be"),
        ({"data": ["0"] * 384}, "the data of images must be"),
        ({"data": [10**40] * 384}, "the data of images must be"),
        ({"data": [256] * 384}, "the data of images must be 0 to 255"),
        ({"data": [-1] * 384}, "the data of images must be 0 to 255"),
        ({"parameters": {"binary_data_size": 384}}, "images must have 384 bytes after the JSON"),
        ({"parameters": []}, "parameters must be an object"),
        ({"name": "image"}, "inputs must be a list of one tensor with the name 'images'"),
    ],
)
def test_a_wrong_tensor_is_refused(client: TestClient, fields: dict[str, Any], reason: str) -> None:
    answer = client.post(INFER, json={"inputs": [tensor(**fields)]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"", {}, "the body is not JSON"),
        (b"\xff", {}, "the body is not JSON"),
        (b"[" * 50_000, {}, "the body is not JSON"),
        (b"[]", {}, "the request must be an object"),
        (b"{}", {}, "inputs must be a list"),
        (b'{"id": 1}', {}, "id must be a string"),
        (b"{}", {LENGTH_HEADER: "3"}, "Inference-Header-Content-Length is larger than the body"),
        (b"{}", {LENGTH_HEADER: "-1"}, "Inference-Header-Content-Length must be a whole number"),
    ],
)
def test_a_wrong_request_is_refused(
    client: TestClient, body: bytes, headers: dict[str, str], reason: str
) -> None:
    answer = client.post(INFER, content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)


@pytest.mark.parametrize(
    "output",
    [
        {"name": "logits"},
        {"name": "probabilities", "parameters": {"binary_data": "yes"}},
        {"name": "probabilities", "parameters": {"classification": -1}},
        {"name": "probabilities", "parameters": 3},
    ],
)
def test_a_wrong_output_is_refused(client: TestClient, output: dict[str, Any]) -> None:
    answer = client.post(INFER, json={"inputs": [tensor()], "outputs": [output]})
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/v2/models/shapes", "/v2/models/colors/versions/2"])
def test_there_is_one_model_with_one_version(client: TestClient, path: str) -> None:
    for answer in (client.get(path), client.get(f"{path}/ready"), client.post(f"{path}/infer")):
        assert answer.status_code == 404
        assert answer.json() == {"error": "there is only the model 'colors', version 1"}
