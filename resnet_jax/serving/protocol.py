"""Tensors of the Open Inference Protocol (version 2), as JSON or as bytes after the JSON.

The formats are those of https://github.com/kserve/open-inference-protocol, with Triton's extensions
for binary tensors and for classification:
https://github.com/triton-inference-server/server/tree/main/docs/protocol.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from starlette.exceptions import HTTPException

INPUT, OUTPUT = "images", "probabilities"
EXTENSIONS = ("binary_tensor_data", "classification")
LENGTH_HEADER = "Inference-Header-Content-Length"
"""Header with the length of the JSON in bytes, if tensors follow it."""


class InferRequest(NamedTuple):
    """A request for probabilities.

    Attributes:
        identity: The name that the client gives to the request, or None.
        images: uint8[N, H, W, C].
        binary: Whether the answer has its tensor as bytes.
        top: Number of classes to name, the most probable first. 0 asks for all probabilities.
    """

    identity: str | None
    images: np.ndarray
    binary: bool
    top: int


def metadata(image_shape: Sequence[int], classes: int) -> dict[str, Any]:
    """Return the description of the tensors of a model.

    Args:
        image_shape: Height, width and channels.
        classes: Number of classes.
    """
    return {
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *image_shape]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, classes]}],
    }


def parse(
    body: bytes, json_length: str | None, image_shape: Sequence[int], max_images: int
) -> InferRequest:
    """Return what a request asks for.

    Args:
        body: The JSON, and possibly the bytes of the tensor.
        json_length: Value of the header `LENGTH_HEADER`, or None.
        image_shape: Height, width and channels of the images that the network takes.
        max_images: Largest number of images.

    Raises:
        HTTPException: The request is wrong, or has too many images (status 400).
    """
    length = len(body) if json_length is None else _whole(json_length, LENGTH_HEADER)
    _require(length <= len(body), f"{LENGTH_HEADER} is larger than the body")
    try:
        request = json.loads(body[:length])
    except (ValueError, RecursionError):
        raise _wrong("the body is not JSON") from None
    _require(isinstance(request, dict), "the request must be an object")
    identity = request.get("id")
    _require(identity is None or isinstance(identity, str), "id must be a string")
    tensor = _only(request, "inputs", INPUT)
    images = _images(tensor, body[length:], image_shape, max_images)
    binary = _parameters(request).get("binary_data_output", False)
    top = 0
    if request.get("outputs") is not None:
        parameters = _parameters(_only(request, "outputs", OUTPUT))
        binary = parameters.get("binary_data", binary)
        top = parameters.get("classification", 0)
    _require(isinstance(binary, bool), "binary_data must be true or false")
    _require(_is_whole(top), "classification must be a whole number")
    return InferRequest(identity, images, binary, top)


def answer(
    request: InferRequest, model_name: str, probabilities: np.ndarray, class_names: Sequence[str]
) -> tuple[bytes, dict[str, str]]:
    """Return the body of the answer, and its headers.

    Args:
        request: What was asked for.
        model_name: Name of the model.
        probabilities: float32[N, K].
        class_names: K names.
    """
    if request.top:
        rows = [_classes(row, class_names, request.top) for row in probabilities]
        shape, datatype = [len(rows), len(rows[0])], "BYTES"
        values: list[Any] = [text for row in rows for text in row]
    else:
        shape, datatype = list(probabilities.shape), "FP32"
        values = probabilities.ravel().tolist()
    output: dict[str, Any] = {"name": OUTPUT, "datatype": datatype, "shape": shape}
    data = b""
    if request.binary:
        data = _strings(values) if request.top else probabilities.astype("<f4").tobytes()
        output["parameters"] = {"binary_data_size": len(data)}
    else:
        output["data"] = values
    response = {"model_name": model_name, "outputs": [output]}
    if request.identity is not None:
        response["id"] = request.identity
    header = json.dumps(response).encode()
    if not request.binary:
        return header, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(header))}
    return header + data, headers


def _images(
    tensor: Mapping[str, Any], data: bytes, image_shape: Sequence[int], max_images: int
) -> np.ndarray:
    """Return the images of a tensor, uint8[N, H, W, C]."""
    _require(tensor.get("datatype") == "UINT8", f"{INPUT} must have the datatype UINT8")
    shape: Any = tensor.get("shape")
    wanted = f"{INPUT} must have the shape [N, {', '.join(map(str, image_shape))}]"
    _require(isinstance(shape, list) and all(map(_is_whole, shape)), wanted)
    count, *rest = shape or [0]
    _require(count > 0 and rest == list(image_shape), wanted)
    _require(count <= max_images, f"a request can have at most {max_images} images")
    size = _parameters(tensor).get("binary_data_size")
    if size is not None:
        _require(
            size == len(data) == math.prod(shape),
            f"{INPUT} must have {math.prod(shape)} bytes after the JSON, as binary_data_size says",
        )
        return np.frombuffer(data, np.uint8).reshape(shape)
    try:
        levels = np.asarray(tensor.get("data"))
    except (ValueError, OverflowError):
        levels = np.asarray(None)
    _require(
        levels.dtype.kind in "iu" and levels.size == math.prod(shape),
        f"the data of {INPUT} must be {math.prod(shape)} whole numbers",
    )
    _require(0 <= levels.min() <= levels.max() <= 255, f"the data of {INPUT} must be 0 to 255")
    return levels.astype(np.uint8).reshape(shape)


def _only(request: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    """Return the only tensor of a kind, which must have a name."""
    found = request.get(kind)
    if not (
        isinstance(found, list)
        and len(found) == 1
        and isinstance(found[0], dict)
        and found[0].get("name") == name
    ):
        raise _wrong(f"{kind} must be a list of one tensor with the name {name!r}")
    return found[0]


def _parameters(owner: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = owner.get("parameters", {})
    _require(isinstance(parameters, dict), "parameters must be an object")
    return parameters


def _classes(row: np.ndarray, class_names: Sequence[str], top: int) -> list[str]:
    """Return the most probable classes as Triton writes them: probability, index, name."""
    return [f"{row[k]:.6f}:{k}:{class_names[k]}" for k in np.argsort(-row, kind="stable")[:top]]


def _strings(texts: Sequence[str]) -> bytes:
    """Return strings as bytes, each after its length in four bytes."""
    encoded = [text.encode() for text in texts]
    return b"".join(len(data).to_bytes(4, "little") + data for data in encoded)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _wrong(f"{name} must be a whole number")
    return int(text)


def _require(fits: bool, reason: str) -> None:
    if not fits:
        raise _wrong(reason)


def _wrong(reason: str) -> HTTPException:
    return HTTPException(400, reason)
