"""Preprocessing of images for evaluation and prediction: first on the host, then on the device."""

import dataclasses
import os
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from resnet_jax.config.data import Interpolation
from resnet_jax.config.validation import ConfigError, require
from resnet_jax.data.augment.normalization import normalize
from resnet_jax.data.augment.resample import affine_resize
from resnet_jax.data.images.crop import CENTER, CropMode, evaluation_crop
from resnet_jax.data.images.decode import MAX_PIXELS, check_size, decode, rgb_pixels
from resnet_jax.data.images.remote import is_remote, read_remote

ImageLike = np.ndarray | jax.Array | Image.Image | bytes | str | os.PathLike[str]
"""Pixels uint8[H, W] or uint8[H, W, C] with 1 to 4 channels, an image of Pillow, the bytes of an
image file, or the path or URL of one."""

# Weights of red, green and blue in ITU-R 601-2 luma, in units of 1/65536, as in Pillow.
_LUMA = np.array([19595, 38470, 7471], np.uint32)
_INTERPOLATIONS = get_args(Interpolation)
_CROP_MODES = get_args(CropMode)

# Vertical and horizontal positions of the five crops: the corners, then the center.
_FIVE_CROPS = ((0, 0), (0, 1), (1, 0), (1, 1), CENTER)
# The five crops are 224 pixels of 256, as in the papers on AlexNet and ResNet. Crops of the whole
# short side would all be the same part of a square image.
_FIVE_CROPS_FRACTION = 0.875


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Steps that turn an image of any size into the input of a network.

    The pixels and the values are exactly those that the evaluation of the data set gives to the
    network.  For published weights they are within one gray level of those of timm and torchvision.

    Attributes:
        image_size: Height and width of the images after the host's part, in pixels. One integer
            means a square.
        crop_fraction: Side of the central crop as a fraction of the short side of the image, above
            0 to 1.
        interpolation: How images are resized: ``"linear"`` (OpenCV, without antialiasing),
            ``"pil_bilinear"``, ``"pil_bicubic"`` or another one of Pillow's filters.
        mean: Mean that is subtracted from levels between 0 and 1; one value or one per channel.
        std: Standard deviation that the difference is divided by; one value or one per channel.
        channels: Number of channels: 1 for grayscale, 3 for RGB.
        upsample_size: Height and width that the device resamples the images to, in pixels, with
            bilinear interpolation in float32. None leaves them at ``image_size``.
        crop_mode: How an image becomes the wanted shape, as in timm: ``"center"`` cuts off what is
            too long, ``"squash"`` changes the proportions, and ``"border"`` resizes the long side
            to fit and pads the short one with the mean.

    Raises:
        ConfigError: A field has an impossible value.
    """

    image_size: int | tuple[int, int]
    crop_fraction: float
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    upsample_size: int | None = None
    crop_mode: CropMode = "center"

    def __post_init__(self) -> None:
        requirements = {
            "image_size": (min(self.size) > 0, "positive"),
            "crop_fraction": (0 < self.crop_fraction <= 1, "above 0 and at most 1"),
            "interpolation": (
                self.interpolation in _INTERPOLATIONS,
                f"one of {', '.join(_INTERPOLATIONS)}",
            ),
            "crop_mode": (self.crop_mode in _CROP_MODES, f"one of {', '.join(_CROP_MODES)}"),
            "channels": (self.channels in (1, 3), "1 or 3"),
            "mean": (len(self.mean) in (1, self.channels), f"1 value or {self.channels}"),
            "std": (
                len(self.std) in (1, self.channels) and min(self.std) > 0,
                f"1 positive value or {self.channels}",
            ),
            "upsample_size": (
                self.upsample_size is None or self.upsample_size > 0,
                "positive or None",
            ),
        }
        for name, (fits, wanted) in requirements.items():
            require(fits, f"{name} must be {wanted}, but it is {getattr(self, name)!r}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images after the host's part, in pixels."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what `on_host` returns."""
        return (*self.size, self.channels)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        fields = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in fields.items()
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Preprocessing":
        """Return the preprocessing that `to_json` wrote.

        Raises:
            ValueError: A field is missing, unknown or impossible.
        """
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        try:
            return cls(**values)
        except (TypeError, ConfigError) as error:
            raise ValueError(f"the preprocessing cannot be read: {error}") from None

    def on_host(self, image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Decode, resize and crop one image.

        Args:
            image: Pixels of any size, an image of Pillow, the bytes of an image file, or the path
                or URL of one. Grayscale images are repeated over three channels and colors become
                luma where the network wants it. Transparency is dropped. The orientation in the
                EXIF metadata is applied.
            max_pixels: Largest number of pixels of an image that is not an array. A small file can
                announce so many that the memory does not suffice.

        Returns:
            uint8[height, width, channels].

        Raises:
            ValueError: The image cannot be decoded or has too many pixels, or the array is not
                uint8[H, W] or uint8[H, W, C].
            OSError: The file cannot be read.
            ImportError: ``"linear"`` needs OpenCV, or a URL needs fsspec, which is not installed.
        """
        return self._to_size(_rgb(image, max_pixels), CENTER)

    def five_crops(self, image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Decode and resize one image, and crop its four corners and its center.

        The image is resized so that a crop has at most 0.875 of its short side, even if
        ``crop_fraction`` is larger.

        Args:
            image: As in `on_host`.
            max_pixels: As in `on_host`.

        Returns:
            uint8[5, height, width, channels]: top left, top right, bottom left, bottom right,
            center.

        Raises:
            ValueError: As in `on_host`.
            OSError: The file cannot be read.
            ImportError: As in `on_host`.
        """
        fraction = min(self.crop_fraction, _FIVE_CROPS_FRACTION)
        smaller = dataclasses.replace(self, crop_fraction=fraction)
        pixels = _rgb(image, max_pixels)
        return np.stack([smaller._to_size(pixels, anchor) for anchor in _FIVE_CROPS])

    def on_device(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Resample and normalize a batch of images that `on_host` returned; jittable.

        Args:
            images: uint8[B, height, width, channels].

        Returns:
            float32[B, H, W, channels], with H = W = ``upsample_size`` if that is set.
        """
        # NumPy would normalize in float64.
        images = jnp.asarray(images)
        if self.upsample_size is not None:
            zeros = jnp.zeros(images.shape[0])
            images = affine_resize(
                images,
                self.upsample_size,
                rotation=zeros,
                scale=zeros + 1,
                shift=jnp.stack([zeros, zeros], axis=-1),
            )
        return normalize(images, self.mean, self.std)

    def _to_size(self, pixels: np.ndarray, anchor: tuple[float, float]) -> np.ndarray:
        """Resize and crop uint8[H, W, 3] to uint8[height, width, channels]."""
        height, width = self.size
        # Data sets whose images all have this size are evaluated without any resizing.
        if self.crop_fraction == 1 and pixels.shape[:2] == (height, width):
            return _to_channels(pixels, self.channels)
        mean = self.mean if len(self.mean) == 3 else self.mean * 3
        crop = evaluation_crop(
            pixels,
            image_size=self.size,
            crop_fraction=self.crop_fraction,
            interpolation=self.interpolation,
            crop_mode=self.crop_mode,
            fill=tuple(round(255 * level) for level in mean),
            anchor=anchor,
        )
        return _to_channels(crop, self.channels)


def _rgb(image: ImageLike, max_pixels: int) -> np.ndarray:
    """Return the pixels of an image of any kind, uint8[H, W, 3]."""
    if isinstance(image, np.ndarray | jax.Array):
        return _to_channels(np.asarray(image), 3)
    if isinstance(image, Image.Image):
        check_size(image.width, image.height, max_pixels)
        return rgb_pixels(image)
    if isinstance(image, bytes):
        return decode(image, max_pixels=max_pixels)
    return decode(_read(image), max_pixels=max_pixels)


def _read(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file or URL."""
    if is_remote(path):
        return read_remote(os.fspath(path))
    return Path(path).expanduser().read_bytes()


def _to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return uint8[H, W, channels] with 1 or 3 channels, for pixels with any number of them."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(
            f"an image must be uint8[H, W] or uint8[H, W, C], but it is "
            f"{pixels.dtype}{list(pixels.shape)}"
        )
    if pixels.shape[-1] == channels:
        return pixels
    if pixels.shape[-1] in (2, 4):
        # The last channel is transparency.
        return _to_channels(pixels[..., :-1], channels)
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, channels, axis=-1)
    if pixels.shape[-1] == 3 and channels == 1:
        return ((pixels @ _LUMA + 0x8000) >> 16).astype(np.uint8)[..., None]
    raise ValueError(f"an image must have 1 to 4 channels, but it has {pixels.shape[-1]}")
