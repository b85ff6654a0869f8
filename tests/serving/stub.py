"""A network that knows colors, computed by NumPy, so that requests have known answers."""

import asyncio
import contextlib
import dataclasses
import io
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.serving import Limits, Model, create_app

Result = TypeVar("Result")

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
LIMITS = Limits(body_bytes=100_000, pixels=90_000, images=3, waiting=6, seconds=60)


def probabilities(images: np.ndarray) -> np.ndarray:
    """Return a high probability for the color of each image, float32[B, 3]."""
    means = images.mean(axis=(1, 2), dtype=np.float32) / 50
    shares = np.exp(means - means.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def heat(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return where the color of the class is, float32[1, H, W]."""
    return (images[..., targets[0]] / 255).astype(np.float32)


MODEL = Model(
    "colors",
    "numpy",
    tuple(COLORS),
    Preprocessing(8, 1.0, "pil_bilinear", (0.0,), (1.0,), 3),
    probabilities,
    heat,
)


def run_alone(main: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of a coroutine, which gets a thread and an event loop of its own.

    The thread of the tests has a running event loop after a browser was started.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, main).result()


def changed(**fields: Any) -> Model:
    """Return the model with other fields."""
    return dataclasses.replace(MODEL, **fields)


def image_file(color: str = "red", size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    """Return an image file of one color; the size is width and height."""
    file = io.BytesIO()
    Image.new("RGB", size, COLORS[color]).save(file, kind)
    return file.getvalue()


@contextlib.contextmanager
def serving(
    model: Model = MODEL, limits: Limits = LIMITS, *, ready: bool = True, **options: Any
) -> Iterator[TestClient]:
    """Return a client of an application, which is ready unless that is not asked for."""
    with TestClient(create_app(model, limits, **options)) as client:
        if ready:
            wait_until_ready(client)
        yield client


def wait_until_ready(client: TestClient) -> None:
    """Wait until all programs are compiled."""
    while client.get("/v2/health/ready").status_code != 200:
        time.sleep(0.01)
