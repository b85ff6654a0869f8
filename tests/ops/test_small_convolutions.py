"""Convolutions in pairs of pixels and by Winograd's algorithm, and the rule that chooses them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.layers import conv
from resnet_jax.ops import convolution, platform
from resnet_jax.ops.convolution import convolve
from resnet_jax.ops.platform import formulation
from tests.ops.test_convolution import (
    assert_exact_to_rounding,
    assert_layer_is_exact_to_rounding,
    pulled_back,
)

SAME = ((1, 1), (1, 1))

three_by_three = partial(convolve, strides=(1, 1), padding=SAME)


def chosen(shape: tuple[int, ...], features: int, **options: Any) -> str:
    """Return the name of the formulation of a convolution on CPUs, from its lowered program."""
    options = {"kernel_size": 3, "stride": 1, "dtype": jnp.float32} | options
    layer = conv(features, options.pop("kernel_size"), options.pop("stride"), **options)
    x = jax.ShapeDtypeStruct(shape, options["dtype"])
    with formulation("parts"):
        params = jax.eval_shape(layer.init, jax.random.key(0), x)
        program = jax.jit(layer.apply).lower(params, x).as_text()
    if "stablehlo.while" in program:
        return "winograd"
    return "pairs" if "stride = [1, 2]" in program else "convolution"


@pytest.mark.parametrize(
    ("expected", "shape", "features", "options"),
    [
        ("pairs", (128, 28, 28, 16), 16, {}),
        ("pairs", (128, 28, 28, 1), 16, {}),
        ("pairs", (2, 8, 8, 3), 8, {"kernel_size": 5}),
        ("convolution", (128, 7, 7, 16), 16, {}),
        ("convolution", (128, 28, 28, 16), 16, {"stride": 2}),
        ("convolution", (128, 28, 28, 16), 16, {"dilation": 2}),
        ("convolution", (128, 28, 28, 16), 32, {}),
        ("convolution", (128, 14, 14, 32), 32, {}),
        ("winograd", (128, 14, 14, 64), 64, {}),
        ("winograd", (16, 56, 56, 64), 64, {}),
        ("winograd", (128, 7, 7, 128), 256, {}),
        ("convolution", (1, 14, 14, 64), 64, {}),
        ("convolution", (128, 14, 14, 64), 64, {"dtype": jnp.bfloat16}),
        ("convolution", (128, 14, 14, 64), 64, {"kernel_size": 5}),
        ("convolution", (1024, 3, 3, 64), 64, {}),
        ("convolution", (16, 7, 7, 512), 512, {}),
    ],
)
def test_the_shape_chooses(
    expected: str, shape: tuple[int, ...], features: int, options: dict[str, Any]
) -> None:
    assert chosen(shape, features, **options) == expected


def test_images_on_several_devices_are_not_sliced() -> None:
    with platform.devices(2):
        assert chosen((128, 14, 14, 64), 64) == "convolution"


@pytest.mark.parametrize("size", [(5, 6), (4, 7)])
@pytest.mark.parametrize("channels", [1, 16])
def test_pairs_of_pixels(channels: int, size: tuple[int, int]) -> None:
    x = jax.random.normal(jax.random.key(0), (2, *size, channels))
    assert_layer_is_exact_to_rounding(conv(12, 3), x)


def test_pairs_of_pixels_with_uneven_padding() -> None:
    x, kernel = jnp.ones((2, 5, 6, 3)), jax.random.normal(jax.random.key(0), (2, 4, 3, 5))
    program = partial(convolve, strides=(1, 1), padding=((1, 0), (0, 3)))
    assert_exact_to_rounding(program, x, kernel)


@pytest.fixture
def slices_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use Winograd's algorithm for small batches, in slices of an image each."""
    monkeypatch.setattr(convolution, "_WINOGRAD_BYTES", 0)
    monkeypatch.setattr(convolution, "_num_slices", lambda x, *_: x.shape[0])


@pytest.mark.usefixtures("slices_of_one_image")
@pytest.mark.parametrize(
    ("size", "channels", "features"), [((6, 8), 64, 64), ((7, 9), 128, 128), ((8, 7), 64, 130)]
)
def test_winograd_is_exact_for_small_integers(
    size: tuple[int, int], channels: int, features: int
) -> None:
    # All intermediate results are multiples of 1/16 below 2**20, which float32 holds exactly.  A
    # missing image, pixel or product changes the results.
    batch = 3
    weights = 1 + jnp.arange(batch)[:, None, None, None]
    shapes = ((batch, *size, channels), (3, 3, channels, features), (batch, *size, features))
    x, kernel, cotangent = (
        jax.random.randint(jax.random.key(i), shape, -1, 2).astype(jnp.float32)
        for i, shape in enumerate(shapes)
    )
    inputs = (weights * x, kernel)
    plain, parts = (
        pulled_back(name, three_by_three, inputs, cotangent) for name in ("convolution", "parts")
    )
    jax.tree.map(np.testing.assert_array_equal, parts, plain)


@pytest.mark.usefixtures("slices_of_one_image")
def test_winograd_rounds_little_more_than_a_convolution() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 128))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 128, 128))
    cotangent = jax.random.normal(jax.random.key(2), x.shape)
    with jax.enable_x64(True):
        wide = [np.asarray(array, np.float64) for array in (x, kernel, cotangent)]
        exact = pulled_back("convolution", three_by_three, wide[:2], wide[2])
    results = {
        name: pulled_back(name, three_by_three, (x, kernel), cotangent)
        for name in ("convolution", "parts")
    }

    def errors(name: Any) -> list[float]:
        return [
            float(np.sqrt(np.mean((np.asarray(actual, np.float64) - np.asarray(expected)) ** 2)))
            for actual, expected in zip(
                jax.tree.leaves(results[name]), jax.tree.leaves(exact), strict=True
            )
        ]

    for plain, winograd in zip(errors("convolution"), errors("parts"), strict=True):
        assert 0 < winograd < 6 * plain
