"""Images are decoded and cropped without the optional libraries, and give the same pixels."""

import itertools
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

from resnet_jax.data.images import crop, jpeg, optional
from resnet_jax.data.images.decode import DecodeError, decode
from tests.data.images.conftest import jpeg as encode

PLAIN_INSTALL = """
    import io
    import sys

    import numpy as np
    from PIL import Image

    MISSING = {"cv2", "etils", "fsspec", "grain", "optax", "simplejpeg", "sklearn"}

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in MISSING:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())

    from resnet_jax.data.images.crop import evaluation_crop, evaluation_image

    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    for interpolation in ("pil_bilinear", "pil_bicubic", "linear"):
        options = dict(image_size=32, crop_fraction=0.875, interpolation=interpolation)
        try:
            print(evaluation_image(buffer.getvalue(), **options).shape)
            print(evaluation_crop(pixels, **options).shape)
        except ImportError as error:
            print(error)
"""


def test_a_plain_install_decodes_and_crops() -> None:
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PLAIN_INSTALL)],
        capture_output=True,
        text=True,
        check=False,
    )
    *shapes, message = process.stdout.splitlines()
    assert shapes == ["(32, 32, 3)"] * 4, process.stderr
    assert message.startswith("interpolation 'linear' needs OpenCV (")
    assert "pip install 'resnet-linen[data]'" in message


@pytest.fixture
def without_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that decodes a JPEG file with Pillow alone."""

    def decode_jpeg(data: bytes, **options: Any) -> np.ndarray:
        header = jpeg.read_header(data)
        assert header is not None
        with monkeypatch.context() as patch:
            patch.setattr(jpeg, "simplejpeg", lambda: None)
            return jpeg.decode_jpeg(data, header, **options)

    return decode_jpeg


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(427, 640), (201, 150), (37, 53)])
def test_pillow_and_simplejpeg_give_the_same_pixels(
    photos: list[np.ndarray], without_simplejpeg: Any, shape: tuple[int, int], shrink: int
) -> None:
    assert optional.simplejpeg() is not None
    for photo, subsampling, progressive, grey in itertools.product(
        photos, (0, 1, 2), (False, True), (False, True)
    ):
        pixels = np.ascontiguousarray(photo[: shape[0], : shape[1]])
        data = encode(
            pixels[..., 0] if grey else pixels, subsampling=subsampling, progressive=progressive
        )
        ours = without_simplejpeg(data, shrink=shrink)
        np.testing.assert_array_equal(ours, decode(data, shrink=shrink))


def test_truncated_files_are_refused_without_simplejpeg(
    photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpeg, "simplejpeg", lambda: None)
    data = encode(photos[0])
    for part in (data[: len(data) // 2], data[:-2]):
        with pytest.raises(DecodeError, match=f"{len(part)} bytes"):
            decode(part, rows=20)


def test_crops_need_no_simplejpeg(
    photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(photos[0])
    evaluation: dict[str, Any] = {
        "image_size": 64,
        "crop_fraction": 0.875,
        "interpolation": "pil_bicubic",
    }
    expected = crop.evaluation_image(data, **evaluation)
    with monkeypatch.context() as patch:
        patch.setattr(jpeg, "simplejpeg", lambda: None)
        np.testing.assert_array_equal(crop.evaluation_image(data, **evaluation), expected)
    crops = np.empty((2, 24, 24, 3), np.uint8)
    options: dict[str, Any] = {"scale": (0.08, 1), "ratio": (0.75, 4 / 3)}
    for draws in np.random.default_rng(0).random((8, 10, 4)).tolist():
        crop.random_resized_crop(data, crops[0], draws, interpolation="pil_bilinear", **options)
        with monkeypatch.context() as patch:
            patch.setattr(jpeg, "simplejpeg", lambda: None)
            crop.random_resized_crop(data, crops[1], draws, interpolation="pil_bilinear", **options)
        np.testing.assert_array_equal(*crops)
