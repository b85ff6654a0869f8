"""Decoding, cropping and resizing, compared with Pillow."""

import io
import math
import resource
import tracemalloc
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from resnet_jax.data.images.crop import (
    evaluation_image,
    random_box,
    random_resized_crop,
    resize,
)
from resnet_jax.data.images.decode import DecodeError, TooLargeError, decode, decode_strips
from resnet_jax.data.images.pixels import pixel_statistics
from tests.data.images.conftest import jpeg


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def cropped(data: bytes, size: int, draws: Any, **options: Any) -> np.ndarray:
    # The former content of the batch must not show through.
    out = np.full((2, size, size, 3), 77, np.uint8)
    random_resized_crop(data, out[0], draws, **options)
    assert (out[1] == 77).all()
    return out[0]


def near(ours: np.ndarray, theirs: np.ndarray, share: float = 0.99) -> bool:
    """Return True if at least this share of the values differs by at most one gray level."""
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    return bool(np.mean(np.abs(ours.astype(int) - theirs.astype(int)) <= 1) >= share)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"subsampling": 0}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "L", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("GIF", "P", {}),
    ],
)
def test_every_kind_of_file_becomes_the_colours_that_pillow_sees(
    photos: list[np.ndarray], kind: str, mode: str, options: dict[str, Any]
) -> None:
    data = encoded(Image.fromarray(photos[0][:101, :150]).convert(mode), kind, **options)
    assert near(decode(data), pillow(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_s_orientation_is_applied(photos: list[np.ndarray], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(photos[0][:60, :100], exif=exif)
    assert near(decode(data), pillow(data))
    assert decode(data).shape == ((100, 60, 3) if orientation > 4 else (60, 100, 3))


def test_sixteen_bits_become_eight() -> None:
    levels = np.arange(0, 65536, 257, dtype=np.uint16)
    data = encoded(Image.fromarray(np.tile(levels, (4, 1))), "PNG")
    np.testing.assert_array_equal(decode(data)[0, :, 0], np.arange(256))


def test_dark_images_of_sixteen_bits_stay_dark() -> None:
    dark = np.full((4, 4), 200, np.uint16)
    for kind in ("PNG", "TIFF"):
        assert (decode(encoded(Image.fromarray(dark), kind)) == 1).all()
    # The file does not say how many of the 32 bits are used.
    for level, expected in ((200, 200), (25700, 100)):
        image = Image.fromarray(np.full((4, 4), level, np.int32))
        assert (decode(encoded(image, "TIFF")) == expected).all()


def test_levels_that_do_not_fit_16_bits_are_refused() -> None:
    levels = np.array([[0, 65535]], np.int32)
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(levels), "TIFF"))[0, :, 0], [0, 255]
    )
    for low, high in ((-1, 5), (0, 65536), (-(2**31), 2**31 - 1)):
        image = Image.fromarray(np.array([[low, high]], np.int32))
        message = f"^levels are whole numbers from {low} to {high}; they must be from 0 to 65535$"
        with pytest.raises(DecodeError, match=message):
            decode(encoded(image, "TIFF"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "CMYK", "I;16", "I;16B", "I", "F"])
def test_large_images_are_decoded_in_strips(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    grey = {"I;16": np.uint16, "I;16B": ">u2", "I": np.int32, "F": np.float32}
    if mode in grey:
        levels = rng.integers(0, 65536, (50, 40)) / (65536 if mode == "F" else 1)
        image = Image.fromarray(levels.astype(grey[mode]))
    else:
        image = Image.fromarray(rng.integers(0, 256, (50, 40, 3), np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "TIFF", exif=exif)
    whole = decode(data)
    assert whole.shape == (40, 50, 3)
    monkeypatch.setattr("resnet_jax.data.images.decode._STRIP", 350)
    strips = list(decode_strips(data))
    assert [len(strip) for strip in strips] == [7, 7, 7, 7, 7, 5]
    np.testing.assert_array_equal(np.concatenate(strips), whole)
    np.testing.assert_array_equal(decode(data), whole)
    statistics = pixel_statistics(strips)
    assert (statistics.height, statistics.width) == (40, 50)
    np.testing.assert_array_equal(statistics.total, whole.sum((0, 1), dtype=int))
    np.testing.assert_array_equal(statistics.square, (whole.astype(int) ** 2).sum((0, 1)))
    cells = whole.reshape(8, 5, 50, 3)[:, :, :6].mean((1, 2))
    np.testing.assert_allclose(statistics.thumbnail[:, 0], cells, atol=0.51)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 9), (300, 1), (1, 300)])
def test_small_images_have_statistics_too(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    statistics = pixel_statistics([pixels])
    np.testing.assert_array_equal(statistics.total, pixels.sum((0, 1), dtype=int))
    np.testing.assert_array_equal(statistics.square, (pixels.astype(int) ** 2).sum((0, 1)))


def test_statistics_need_no_copy_of_the_image() -> None:
    data = encoded(Image.new("RGB", (3000, 2000), (1, 2, 3)), "PNG")
    tracemalloc.start()
    try:
        statistics = pixel_statistics(decode_strips(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert statistics.total.tolist() == [6_000_000, 12_000_000, 18_000_000]
    # This does not count the 4 bytes that Pillow itself allocates for each pixel.
    assert peak < 2 * 3000 * 2000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_the_largest_number_of_pixels_is_a_setting(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.new("RGB", (40, 30)), kind)
    assert decode(data, max_pixels=1200).shape == (30, 40, 3)
    message = r"^40 x 30 pixels are more than the limit of 1,199 \(data\.images\.max_pixels"
    with pytest.raises(TooLargeError, match=message):
        decode(data, max_pixels=1199)
    with pytest.raises(TooLargeError, match=message):
        next(decode_strips(data, max_pixels=1199))
    # Our own limit applies, and Pillow's global limit is left unchanged.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(data).shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_roughly_decoded_colours_are_nearly_those_of_the_file(photos: list[np.ndarray]) -> None:
    for photo in photos:
        data = jpeg(photo)
        exact, rough = (decode(data, rough=rough).astype(int) for rough in (False, True))
        error = np.abs(exact - rough)
        assert 0 < error.mean() < 2
        assert np.percentile(error, 99) < 12


def test_floating_point_levels_are_from_0_to_1() -> None:
    levels = np.linspace(0, 1, 256, dtype=np.float32)[None]
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(levels), "TIFF"))[0, :, 0], np.arange(256)
    )
    for bad in (levels * 2, levels - 1, levels * np.nan):
        with pytest.raises(DecodeError, match=r"^levels are floating-point numbers from "):
            decode(encoded(Image.fromarray(bad), "TIFF"))


def test_the_first_frame_of_an_animation_is_taken(photos: list[np.ndarray]) -> None:
    frames = [Image.fromarray(photo[:50, :50]) for photo in photos]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode(data), photos[0][:50, :50])


@pytest.mark.parametrize("shape", [(1, 80), (80, 1), (1, 1)])
def test_thin_images_are_cropped_too(photos: list[np.ndarray], shape: tuple[int, int]) -> None:
    for kind in ("JPEG", "PNG"):
        data = encoded(Image.fromarray(photos[0][: shape[0], : shape[1]]), kind)
        rng = np.random.default_rng(0)
        crop = cropped(
            data,
            16,
            rng.random((10, 4)),
            scale=(0.08, 1),
            ratio=(0.75, 4 / 3),
            interpolation="linear",
        )
        assert crop.shape == (16, 16, 3)
        centre = evaluation_image(
            data, image_size=16, crop_fraction=0.875, interpolation="pil_bicubic"
        )
        assert centre.shape == (16, 16, 3)


INTERPOLATIONS = ("linear", "pil_bilinear", "pil_bicubic")


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(20, 300), (300, 20), (37, 427), (640, 41)])
def test_of_a_long_image_only_the_centre_is_resized(
    photos: list[np.ndarray], interpolation: Any, shape: tuple[int, int]
) -> None:
    pixels = np.ascontiguousarray(photos[0].swapaxes(0, 1)[: shape[0], : shape[1]])
    size, short = 28, 32
    height, width = (side * short // min(shape) for side in shape)
    top, left = round((height - size) / 2), round((width - size) / 2)
    expected = resize(pixels, height, width, interpolation)[top : top + size, left : left + size]
    ours = evaluation_image(
        encoded(Image.fromarray(pixels), "PNG"),
        image_size=size,
        crop_fraction=0.875,
        interpolation=interpolation,
    )
    # OpenCV rounds the coordinates of a warp to 1/32 of a pixel.
    tolerance = 8 if interpolation == "linear" else 1
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= tolerance


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(1, 40000), (40000, 1)])
def test_a_very_long_image_costs_no_more_than_its_pixels(
    interpolation: Any, shape: tuple[int, int]
) -> None:
    levels = np.repeat(np.linspace(0, 200, 40000).astype(np.uint8), 3).reshape(*shape, 3)
    data = encoded(Image.fromarray(levels), "PNG")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    crop = evaluation_image(data, image_size=224, crop_fraction=0.875, interpolation=interpolation)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "KiB"
    assert crop.shape == (224, 224, 3)
    assert (np.abs(crop.astype(int) - 100) <= 1).all()


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused_with_its_size(content: bytes) -> None:
    with pytest.raises(DecodeError, match=f"no whole image, {len(content)} bytes"):
        decode(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_files_are_refused(photos: list[np.ndarray], kind: str) -> None:
    data = encoded(Image.fromarray(photos[0]), kind)
    for share in (0.02, 0.5, 0.95):
        part = data[: int(share * len(data))]
        with pytest.raises(DecodeError, match=f"{len(part)} bytes"):
            decode(part)


@pytest.mark.parametrize(
    ("interpolation", "resampling"),
    [
        ("pil_bilinear", Image.Resampling.BILINEAR),
        ("pil_bicubic", Image.Resampling.BICUBIC),
    ],
)
@pytest.mark.parametrize(("size", "crop_fraction"), [(224, 0.875), (96, 0.95), (64, 1.0)])
@pytest.mark.parametrize("portrait", [False, True])
def test_the_evaluation_crop_is_torchvision_s(
    photos: list[np.ndarray],
    interpolation: Any,
    resampling: Image.Resampling,
    size: int,
    crop_fraction: float,
    portrait: bool,
) -> None:
    """Resize the short side and crop the center of a Pillow image, with torchvision's rounding."""
    photo = photos[1][:, :533]
    data = jpeg(np.ascontiguousarray(photo.swapaxes(0, 1)) if portrait else photo)
    with Image.open(io.BytesIO(data)) as image:
        short = math.floor(size / crop_fraction)
        width, height = image.size
        resized = image.resize(
            (int(short * width / height), short)
            if height <= width
            else (short, int(short * height / width)),
            resampling,
        )
        left = round((resized.width - size) / 2.0)
        top = round((resized.height - size) / 2.0)
        expected = np.asarray(resized.crop((left, top, left + size, top + size)))
    ours = evaluation_image(
        data, image_size=size, crop_fraction=crop_fraction, interpolation=interpolation
    )
    assert near(ours, expected)


def test_boxes_are_distributed_as_asked_for() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array(
        [
            random_box(300, 400, draws, scale=(0.2, 0.8), ratio=(0.5, 2.0))
            for draws in rng.random((4000, 10, 4))
        ]
    )
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 300).all()
    assert (left + width <= 400).all()
    area, aspect = height * width / (300 * 400), width / height
    assert 0.19 < area.min() < 0.22
    assert 0.7 < area.max() < 0.81
    assert 0.49 < aspect.min() < 0.55
    assert 1.8 < aspect.max() < 2.02
    # The crop is equally likely to be cut off at both ends.
    rest = (top / np.maximum(1, 300 - height))[height < 290]
    assert abs(rest.mean() - 0.5) < 0.02


def test_a_box_that_does_not_fit_becomes_the_central_one() -> None:
    draws = np.random.default_rng(0).random((10, 4))
    box = random_box(10, 1000, draws, scale=(0.9, 1.0), ratio=(0.75, 4 / 3))
    assert box == (0, 493, 10, 13)


@pytest.mark.parametrize("interpolation", ["linear", "pil_bilinear"])
def test_a_jpeg_that_is_shrunk_while_decoding_shows_the_same(
    photos: list[np.ndarray], interpolation: str
) -> None:
    # The image is smooth, because "linear" does not antialias.
    smooth = Image.fromarray(photos[0]).resize((20, 14)).resize((640, 427))
    data = jpeg(np.asarray(smooth))
    options: dict[str, Any] = {
        "scale": (0.9, 0.9),
        "ratio": (1.4, 1.4),
        "interpolation": interpolation,
    }
    draws = np.random.default_rng(1).random((10, 4))
    shrunk = cropped(data, 40, draws, **options)
    whole = encoded(Image.open(io.BytesIO(data)), "PNG")
    plain = cropped(whole, 40, draws, **options)
    assert np.abs(shrunk.astype(int) - plain.astype(int)).mean() < 2


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"subsampling": 2, "restart_marker_rows": 1},
        {"subsampling": 2, "restart_marker_blocks": 3},
        {"progressive": True},
        {"comment": b"\xff\xc0\x00\x11\x08 is no frame"},
    ],
    ids=str,
)
@pytest.mark.parametrize("grey", [False, True])
def test_rows_that_are_not_needed_change_nothing_above_them(
    photos: list[np.ndarray], options: dict[str, Any], grey: bool
) -> None:
    pixels = photos[0][:201, :150]
    data = jpeg(pixels[..., 0] if grey else pixels, **options)
    whole = decode(data)
    roughly = decode(data, rough=True)
    for rows in (*range(1, 201, 7), 199, 200, 201):
        upper = decode(data, rows=rows)
        np.testing.assert_array_equal(upper[:rows], whole[:rows])
        assert len(upper) <= rows + 4 or "progressive" in options
        upper = decode(data, rows=rows, rough=True)
        np.testing.assert_array_equal(upper[:rows], roughly[:rows])
        assert len(upper) == rows or "progressive" in options
    for shrink in (2, 4):
        whole = decode(data, shrink=shrink)
        for rows in range(4, 200, 13):
            upper = decode(data, shrink=shrink, rows=rows)
            np.testing.assert_array_equal(upper[: rows // shrink], whole[: rows // shrink])


def test_a_file_that_ends_early_is_noticed_wherever_the_crop_is(photos: list[np.ndarray]) -> None:
    data = jpeg(photos[0])
    for cut in (data[:-2], data[:-1], data[: len(data) // 2]):
        with pytest.raises(DecodeError, match=f"{len(cut)} bytes"):
            decode(cut, rows=20)
    damaged = data[: len(data) // 4] + bytes(500) + data[len(data) // 4 + 500 :]
    with Image.open(io.BytesIO(damaged)) as image:
        image.load()  # Pillow does not see such damage, and neither do we then.
    assert decode(damaged, rows=300).shape[1] == 640


def test_metadata_that_let_the_image_as_it_is_cost_nothing(photos: list[np.ndarray]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    plain, described = jpeg(photos[0]), jpeg(photos[0], exif=exif)
    assert len(decode(described, rows=50)) == len(decode(plain, rows=50)) < 60
    exif[0x0112] = 6
    assert decode(jpeg(photos[0], exif=exif), rows=50).shape == (640, 427, 3)


@pytest.mark.parametrize("interpolation", ["linear", "pil_bilinear", "pil_bicubic"])
def test_a_crop_is_the_part_of_the_whole_image_resized(
    photos: list[np.ndarray], interpolation: Any
) -> None:
    data = jpeg(photos[0])
    options: dict[str, Any] = {"scale": (0.08, 1), "ratio": (0.75, 4 / 3)}
    pixels = decode(data, rough=interpolation == "linear")
    for draws in np.random.default_rng(0).random((8, 10, 4)):
        top, left, h, w = random_box(*photos[0].shape[:2], draws, **options)
        expected = resize(
            np.ascontiguousarray(pixels[top : top + h, left : left + w]),
            *(224, 224),
            interpolation,
        )
        crop = cropped(data, 224, draws, interpolation=interpolation, **options)
        np.testing.assert_array_equal(crop, expected)
