"""Every operation on an image, compared with Pillow, torchvision and timm."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from resnet_jax.data.augment import Operation, apply_operation
from resnet_jax.data.augment.batch import map_examples
from resnet_jax.data.augment.geometric import random_crop, random_flip
from resnet_jax.data.augment.policies import color_jitter

Picture = Image.Image
PILLOW_AFFINE = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
FILL = (7, 8, 9)


@lru_cache
def _compiled(operation: Operation, interpolation: str) -> Callable[..., jax.Array]:
    return jax.jit(
        partial(
            apply_operation,
            operation=jnp.int32(operation),
            among=(operation,),
            interpolation=interpolation,
            fill=FILL,
        )
    )


def apply(
    operation: Operation, image: np.ndarray, argument: float = 0.0, interpolation: str = "nearest"
) -> np.ndarray:
    function = _compiled(operation, interpolation)
    channels_last = image if image.ndim == 3 else image[..., None]
    changed = function(jnp.asarray(channels_last), argument=jnp.float32(argument))
    return np.asarray(changed).reshape(image.shape)


def differences(ours: np.ndarray, reference: np.ndarray | Picture) -> np.ndarray:
    return np.abs(ours.astype(int) - np.asarray(reference).astype(int))


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "augment_values.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module", params=["slope", "noise", "flat", "one channel"])
def image(request: pytest.FixtureRequest) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:61, :47]
    slope = np.stack([40 + 3 * x, 20 + 2.5 * y + x, 200 - 2 * y], -1)
    slope = np.clip(slope + rng.normal(0, 12, slope.shape), 20, 235).astype(np.uint8)
    return {
        "slope": slope,
        "noise": rng.integers(0, 256, (61, 47, 3), np.uint8),
        "flat": np.full((61, 47, 3), (3, 130, 250), np.uint8),
        "one channel": slope[..., 0],
    }[request.param]


AFFINE = [
    *((Operation.SHEAR_X, v, (1, v, 0, 0, 1, 0)) for v in (0.3, -0.21, 0.99)),
    *((Operation.SHEAR_Y, v, (1, 0, 0, v, 1, 0)) for v in (0.3, -0.21, 0.99)),
    *((Operation.TRANSLATE_X, v, (1, 0, -v, 0, 1, 0)) for v in (5, -12, 3.7, 100)),
    *((Operation.TRANSLATE_Y, v, (1, 0, 0, 0, 1, -v)) for v in (5, -12, 3.7, 100)),
    *((Operation.ROTATE, v, None) for v in (0, 9, -27.3, 45, 90, 135, 180)),
]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize(("operation", "argument", "matrix"), AFFINE)
def test_shapes_change_as_in_pillow(
    operation: Operation, argument: float, matrix: tuple[float, ...] | None, interpolation: str
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    picture, resample = Image.fromarray(image), PILLOW_AFFINE[interpolation]
    if matrix is None:
        reference = picture.rotate(argument, resample, fillcolor=FILL)
    else:
        affine = Image.Transform.AFFINE
        reference = picture.transform(picture.size, affine, matrix, resample, fillcolor=FILL)
    apart = differences(apply(operation, image, argument, interpolation), reference)
    if interpolation == "nearest":
        np.testing.assert_array_equal(apart, 0)
    else:
        assert apart.max() <= 1


def test_large_rotations_choose_the_same_neighbours() -> None:
    # For 224x224 pixels, float32 coordinates are accurate to 1/65,536 of a pixel.
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    for degrees in np.linspace(-135, 135, 13):
        reference = Image.fromarray(image).rotate(degrees, fillcolor=FILL)
        apart = differences(apply(Operation.ROTATE, image, degrees), reference)
        assert np.mean(apart.any(-1)) < 2e-4


ENHANCEMENTS = {
    Operation.BRIGHTNESS: ImageEnhance.Brightness,
    Operation.COLOR: ImageEnhance.Color,
    Operation.CONTRAST: ImageEnhance.Contrast,
    Operation.SHARPNESS: ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("operation", ENHANCEMENTS)
def test_enhancements_equal_pillow(operation: Operation, image: np.ndarray) -> None:
    enhance = ENHANCEMENTS[operation](Image.fromarray(image)).enhance
    for factor in (0, 0.1, 0.37, 0.73, 1, 1.27, 1.9):
        np.testing.assert_array_equal(apply(operation, image, factor), enhance(factor))


POINT_OPERATIONS: list[tuple[Operation, float, Callable[[Picture], Picture]]] = [
    *((Operation.POSTERIZE, v, partial(ImageOps.posterize, bits=v)) for v in range(1, 9)),
    *(
        (Operation.SOLARIZE, v, partial(ImageOps.solarize, threshold=v))
        for v in (0, 100, 178.5, 256)
    ),
    (Operation.EQUALIZE, 0, ImageOps.equalize),
    (Operation.INVERT, 0, ImageOps.invert),
]


@pytest.mark.parametrize(("operation", "argument", "reference"), POINT_OPERATIONS)
def test_point_operations_equal_pillow(
    operation: Operation,
    argument: float,
    reference: Callable[[Picture], Picture],
    image: np.ndarray,
) -> None:
    expected = reference(Image.fromarray(image))
    np.testing.assert_array_equal(apply(operation, image, argument), expected)


def test_equalize_of_an_image_of_few_pixels_equals_pillow() -> None:
    # The step of the histogram is 0, 1 and 2 in these images.
    for side in (12, 17, 23):
        image = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
        np.testing.assert_array_equal(
            apply(Operation.EQUALIZE, image), ImageOps.equalize(Image.fromarray(image))
        )


def test_autocontrast_is_within_a_level_of_pillow(image: np.ndarray) -> None:
    for low, high in ((0, 255), (20, 235), (7, 58), (0, 85)):
        squeezed = (low + image * ((high - low) / 255)).astype(np.uint8)
        apart = differences(
            apply(Operation.AUTOCONTRAST, squeezed),
            ImageOps.autocontrast(Image.fromarray(squeezed)),
        )
        assert apart.max() <= 1


def test_no_bits_are_black() -> None:
    assert not apply(Operation.POSTERIZE, np.full((4, 4, 3), 255, np.uint8), 0).any()


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0, 1.3, 1.5, 2.0])
def test_blur_is_within_a_level_of_pillow(radius: float, image: np.ndarray) -> None:
    reference = Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))
    assert differences(apply(Operation.GAUSSIAN_BLUR, image, radius), reference).max() <= 1


def turned_by_pillow(image: np.ndarray, turn: float) -> Picture:
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    turned = (np.asarray(hue, int) + int(turn * 255)).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


@pytest.mark.parametrize("turn", [0.5, 0.1, 0.017, -0.3])
def test_hue_is_that_of_pillow_but_for_one_step_in_few_pixels(turn: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    apart = differences(apply(Operation.HUE, image, turn), turned_by_pillow(image, turn))
    # One step of the hue changes a value by 6 of 255 levels.
    assert apart.max() <= 6
    assert np.mean((apart > 1).any(-1)) < 2e-3


def test_grey_has_no_hue() -> None:
    gray = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 2, 3))
    np.testing.assert_array_equal(apply(Operation.HUE, gray, 0.3), gray)
    np.testing.assert_array_equal(apply(Operation.HUE, gray[..., 0], 0.3), gray[..., 0])


# Maps torchvision's magnitude to our argument.
FROM_TORCHVISION = {
    "ShearX": (Operation.SHEAR_X, 0.3),
    "ShearY": (Operation.SHEAR_Y, -0.3),
    "TranslateX": (Operation.TRANSLATE_X, 7),
    "TranslateY": (Operation.TRANSLATE_Y, -5),
    "Rotate": (Operation.ROTATE, 27),
    "Brightness": (Operation.BRIGHTNESS, 0.46),
    "Color": (Operation.COLOR, 1.9),
    "Contrast": (Operation.CONTRAST, 1.27),
    "Sharpness": (Operation.SHARPNESS, 1.9),
    "Posterize": (Operation.POSTERIZE, 5),
    "Solarize": (Operation.SOLARIZE, 178.5),
    "AutoContrast": (Operation.AUTOCONTRAST, 0),
    "Equalize": (Operation.EQUALIZE, 0),
    "Invert": (Operation.INVERT, 0),
}


def test_names_and_signs_are_those_of_torchvision(values: dict[str, np.ndarray]) -> None:
    compared = 0
    for name, (operation, argument) in FROM_TORCHVISION.items():
        for interpolation in PILLOW_AFFINE:
            reference = values.get(f"torchvision_{name}_{interpolation}")
            if reference is not None:
                ours = apply(operation, values["image"], argument, interpolation)
                # As in the tests above, all operations but these two are exact.
                tolerance = int(interpolation == "bilinear" or name == "AutoContrast")
                assert differences(ours, reference).max() <= tolerance, name
                compared += 1
    assert compared == len(FROM_TORCHVISION) + 5


def test_solarize_add_equals_timm(values: dict[str, np.ndarray]) -> None:
    ours = apply(Operation.SOLARIZE_ADD, values["image"], 77)
    np.testing.assert_array_equal(ours, values["timm_SolarizeAdd"])


def test_no_colour_is_torchvision_grayscale(values: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(apply(Operation.COLOR, values["image"]), values["gray"])


def test_operations_in_a_row_equal_torchvision(values: dict[str, np.ndarray]) -> None:
    image = values["image"]
    for operation, argument in (
        (Operation.HUE, -0.2),
        (Operation.CONTRAST, 1.3),
        (Operation.COLOR, 0.6),
        (Operation.BRIGHTNESS, 1.2),
    ):
        image = apply(operation, image, argument)
    apart = differences(image, values["jitter"])
    assert np.mean((apart > 1).any(-1)) < 5e-3


def test_colour_jitter_draws_every_order_and_the_whole_range() -> None:
    policy = color_jitter(0.4, 0.3, 1.5, 0.1)
    keys = jax.random.split(jax.random.key(0), 4000)
    operations, arguments = jax.jit(jax.vmap(lambda key: policy.draw(key, 8, 8)))(keys)
    orders, counts = np.unique(operations, axis=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 4000 / 24 * 0.7
    for operation, low, high in (
        (Operation.BRIGHTNESS, 0.6, 1.4),
        (Operation.CONTRAST, 0.7, 1.3),
        (Operation.COLOR, 0.0, 2.5),
        (Operation.HUE, -0.1, 0.1),
    ):
        drawn = np.asarray(arguments)[np.asarray(operations) == operation]
        np.testing.assert_allclose(
            np.quantile(drawn, [0, 0.5, 1]), [low, (low + high) / 2, high], atol=(high - low) / 40
        )


@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.name)
def test_all_at_once_gives_the_pixels_of_one_by_one(operation: Operation) -> None:
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), np.uint8))
    arguments = jnp.array([0.3, 0.45, 0.1])

    def one(image: jax.Array, argument: jax.Array) -> jax.Array:
        return apply_operation(image, jnp.int32(operation), argument, among=list(Operation))

    np.testing.assert_array_equal(
        jax.jit(jax.vmap(one))(images, arguments),
        jax.jit(partial(map_examples, one))(images, arguments),
    )


def test_an_image_of_four_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels, not 4"):
        apply(Operation.COLOR, np.zeros((4, 4, 4), np.uint8))


def test_flips_swap_left_and_right() -> None:
    image = jnp.arange(12, dtype=jnp.uint8).reshape(2, 2, 3)
    flip = jax.jit(random_flip, static_argnames="probability")
    np.testing.assert_array_equal(flip(jax.random.key(0), image, probability=0.0), image)
    flipped = flip(jax.random.key(0), image, probability=1.0)
    np.testing.assert_array_equal(flipped, image[:, ::-1])


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_crops_are_the_windows_of_the_padded_image(mode: str) -> None:
    image = np.arange(1, 31, dtype=np.uint8).reshape(5, 6, 1)
    crop = partial(random_crop, image=jnp.asarray(image), padding=2, mode=mode)
    crops = np.asarray(jax.jit(jax.vmap(crop))(jax.random.split(jax.random.key(0), 1000)))
    margin = ((2, 2), (2, 2), (0, 0))
    padded = np.pad(image, margin, mode="constant" if mode == "zeros" else "reflect")
    windows = [padded[i : i + 5, j : j + 6] for i in range(5) for j in range(5)]
    counts = [np.sum((crops == window).all((1, 2, 3))) for window in windows]
    assert sum(counts) == 1000
    assert min(counts) > 15
