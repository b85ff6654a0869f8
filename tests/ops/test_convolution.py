"""All formulations of convolution and pooling give the same values and gradients."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import count_macs, create_model
from resnet_jax.models.layers import StandardizedConv, conv, same_max_pool, zero_padded_max_pool
from resnet_jax.ops import convolution, platform
from resnet_jax.ops.convolution import convolve
from resnet_jax.ops.gradients import automatic_gradients
from resnet_jax.ops.platform import Formulation, formulation
from resnet_jax.ops.pooling import max_pool
from resnet_jax.training.sharding import batch_sharded, make_mesh, replicated
from tests.comparison import tree_deviation
from tests.variables import random_variables

BY_HAND: tuple[Formulation, ...] = ("parts", "product")


UNIT = 2**-24
"""Unit roundoff of float32: the largest relative error of one operation."""

SPREAD = 8
"""Largest rounding error of a long sum, in units of UNIT times the sum of its absolute terms.

A sum of n terms of either sign has partial sums that grow like a random walk, and rounding adds to
each an error of at most UNIT times that partial sum.  One after the other is the worst order.  For
products of normal numbers, the errors then have a standard deviation of about 0.5 in these units,
whatever n is: 0.44 to 0.53 for 9 to 40,000 terms, in 200 sums each.  The size of the partial sums
is random, too, so that the tail is not that of a normal distribution: each further unit makes an
error 12 to 15 times as rare.  Of 2,000,000 sums of 144 terms, 481 have an error above 3, and 37
above 4.  By the same factor, one above 8 has a probability below 1e-9.  (Higham and Mary 2020,
"Sharper probabilistic backward error analysis for basic linear algebra kernels with random data",
has the theory.)
"""


def value_and_gradients(name: Formulation, program: Callable[..., jax.Array], *inputs: Any) -> Any:
    """Return the output for the inputs, and the gradients for a random cotangent."""
    shape = jax.eval_shape(program, *inputs)
    cotangent = jax.random.normal(jax.random.key(9), shape.shape, jnp.float32)
    return pulled_back(name, program, inputs, cotangent.astype(shape.dtype))


def pulled_back(
    name: Formulation, program: Callable[..., jax.Array], inputs: Any, cotangent: jax.Array
) -> Any:
    return pullback(name, program)(inputs, cotangent)


def pullback(name: Formulation, program: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Return a function from inputs and a cotangent to the output and the gradients."""

    @jax.jit
    def compute(inputs: Any, cotangent: jax.Array) -> Any:
        with formulation(name):
            y, transposed = jax.vjp(program, *inputs)
            return y, transposed(cotangent)

    return compute


def assert_equal_to_rounding(
    program: Callable[..., jax.Array], *inputs: Any, tolerance: float
) -> None:
    """Compare the formulations with each other, relative to the largest value of each array."""
    plain = jax.tree.leaves(value_and_gradients("convolution", program, *inputs))
    for name in BY_HAND:
        written = jax.tree.leaves(value_and_gradients(name, program, *inputs))
        for expected, actual in zip(plain, written, strict=True):
            assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
            expected, actual = (np.asarray(x, np.float64) for x in (expected, actual))
            np.testing.assert_allclose(actual, expected, atol=tolerance * abs(expected).max())


def assert_exact_to_rounding(
    program: Callable[..., jax.Array],
    *inputs: Any,
    in_float64: Callable[..., jax.Array] | None = None,
) -> None:
    """Compare every formulation with float64, within the bound of the arithmetic.

    Each output and gradient of a convolution is a sum of products of inputs.  The same program
    computes the sum of their absolute values from the absolute values of the inputs, and their
    number from ones.  The error of a sum of n products is at most n * UNIT times the sum of their
    absolute values, whatever the order; for long sums `SPREAD` is sharper.

    Args:
        program: a convolution of the inputs, of any type.
        inputs: float32 arrays, or trees of them.
        in_float64: the same program, where ``program`` converts its inputs to float32.
    """
    shape = jax.eval_shape(program, *inputs).shape
    cotangent = jax.random.normal(jax.random.key(9), shape, jnp.float32)

    compute = pullback("convolution", in_float64 or program)

    def exact(change: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
        with jax.enable_x64(True):
            changed = jax.tree.map(lambda x: change(np.asarray(x, np.float64)), (inputs, cotangent))
            return [np.asarray(leaf) for leaf in jax.tree.leaves(compute(*changed))]

    references, magnitudes, counts = exact(np.asarray), exact(np.abs), exact(np.ones_like)
    for name in ("convolution", *BY_HAND):
        outputs = jax.tree.leaves(pulled_back(name, program, inputs, cotangent))
        for actual, expected, magnitude, count in zip(
            outputs, references, magnitudes, counts, strict=True
        ):
            assert (actual.shape, actual.dtype) == (expected.shape, jnp.float32)
            assert expected.dtype == np.float64
            bound = np.minimum(count, SPREAD) * UNIT * magnitude
            excess = np.abs(np.asarray(actual, np.float64) - expected) - bound
            assert excess.max() <= 0, f"{name}: {excess.max():.2e} beyond a bound of {bound.max()}"


def assert_layer_is_exact_to_rounding(layer: Any, x: jax.Array) -> None:
    params = layer.init(jax.random.key(1), x)
    exact = layer.clone(dtype=jnp.float64).apply
    assert_exact_to_rounding(layer.apply, params, x, in_float64=exact)


KERNELS = [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (7, 2, 1)]
"""Kernel size, stride and dilation."""

CHANNELS, SIZES, PADDINGS = [3, 32, 128], [(9, 7), (8, 10), (2, 5)], ["symmetric", "same"]

# Every kernel is combined at least once with every number of channels, size and padding.
# `tests/nightly/convolutions.py` has all combinations.
CASES = [
    (kernel, CHANNELS[i], SIZES[(i + j) % 3], PADDINGS[(i + j) % 2])
    for j, kernel in enumerate(KERNELS)
    for i in range(3)
]


@pytest.mark.parametrize(("kernel", "channels", "size", "padding"), CASES)
def test_convolutions(
    kernel: tuple[int, int, int], channels: int, size: tuple[int, int], padding: Any
) -> None:
    kernel_size, stride, dilation = kernel
    layer = conv(24, kernel_size, stride, dilation=dilation, padding=padding)
    x = jax.random.normal(jax.random.key(0), (2, *size, channels))
    assert_layer_is_exact_to_rounding(layer, x)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "features"), [(12, 40), (300, 20), (20, 300)])
def test_products(channels: int, features: int, stride: int) -> None:
    layer = conv(features, 1, stride)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, channels))
    assert_layer_is_exact_to_rounding(layer, x)


@pytest.mark.parametrize(
    ("devices", "batch", "num_parts"),
    [(8, 16, 2), (8, 32, 4), (8, 40, 5), (8, 4, 1), (8, 1024, 8), (1, 16, 16), (1, 40, 40)],
)
def test_a_batch_is_cut_into_parts_that_every_device_has_a_share_of(
    devices: int, batch: int, num_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_SLICE_BYTES", 1)
    layer = conv(2, 3)
    # All images differ, and each has a different weight in the loss.
    weights = 1 + jnp.arange(batch)[:, None, None, None]
    x = weights * jax.random.normal(jax.random.key(0), (batch, 5, 6, 2))
    with platform.devices(devices):
        assert_layer_is_exact_to_rounding(layer, x)
    kernel = jnp.zeros((3, 3, 2, 2))
    assert convolution._num_slices(x, kernel, x, devices) == num_parts

    # Sums of such integers stay below 2**24 and are exact in any order. An image that is missed or
    # counted twice therefore changes the result.
    signs = [jax.random.randint(jax.random.key(i), x.shape, -1, 2) for i in range(2)]
    inputs = (jnp.ones_like(kernel), (weights * signs[0]).astype(jnp.float32))
    cotangent = signs[1].astype(jnp.float32)

    def program(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return layer.apply({"params": {"kernel": kernel}}, x)

    with platform.devices(devices):
        plain, parts = (
            pulled_back(name, program, inputs, cotangent) for name in ("convolution", "parts")
        )
    jax.tree.map(np.testing.assert_array_equal, parts, plain)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_parts_are_exchanged_between_no_devices(
    kernel_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_SLICE_BYTES", 1)
    layer = conv(2, kernel_size)
    mesh = make_mesh()
    whole, spread = replicated(mesh), batch_sharded(mesh)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(layer.apply(params, x) ** 2)

    params = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 4, 6, 2)))
    x = jax.ShapeDtypeStruct((32, 4, 6, 2), jnp.float32)
    compiled = jax.jit(jax.grad(loss), in_shardings=(whole, spread), out_shardings=whole)
    with formulation("parts"), platform.devices(mesh.size):
        program = compiled.lower(params, x).compile().as_text()
    collectives = re.findall(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", program)
    assert collectives == ["all-reduce"]


@pytest.mark.parametrize(("kernel_size", "groups"), [(3, 4), (1, 4), (3, 8)])
def test_grouped_convolutions(kernel_size: int, groups: int) -> None:
    layer = conv(16, kernel_size, 2, groups=groups, use_bias=True)
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 8))
    assert_layer_is_exact_to_rounding(layer, x)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_standardized_convolutions(kernel_size: int) -> None:
    layer = StandardizedConv(8, kernel_size, 2)
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 6))
    # Standardization subtracts nearly equal numbers in the backward pass.
    assert_equal_to_rounding(layer.apply, layer.init(jax.random.key(1), x), x, tolerance=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_bfloat16_stays_and_loses_no_more_than_its_rounding(kernel_size: int) -> None:
    layer = conv(8, kernel_size, 2, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 6), jnp.bfloat16)
    assert_equal_to_rounding(layer.apply, layer.init(jax.random.key(1), x), x, tolerance=2**-7)


def test_a_padded_kernel_of_one_tap() -> None:
    x, kernel = jnp.ones((1, 3, 3, 2)), jnp.ones((1, 1, 2, 4))
    program = partial(convolve, strides=(2, 2), padding=((1, 1), (1, 1)))
    assert_exact_to_rounding(program, x, kernel)


POOLS = {
    "strided": partial(max_pool, size=3, stride=2, padding=((1, 1), (1, 1))),
    "dense": partial(max_pool, size=3, stride=1, padding=((1, 1), (1, 1))),
    "sparse": partial(max_pool, size=2, stride=3, padding=((1, 0), (0, 1))),
    "wide": partial(max_pool, size=5, stride=2, padding=((2, 2), (2, 2))),
    "same": same_max_pool,
    "zero-padded": zero_padded_max_pool,
}


# Every pooling is combined at least once with every size and with both types.
# `tests/nightly/convolutions.py` has all combinations.
@pytest.mark.parametrize(
    ("pool", "size", "dtype"),
    [
        (pool, size, (jnp.float32, jnp.bfloat16)[(i + j) % 2])
        for i, pool in enumerate(POOLS.values())
        for j, size in enumerate(SIZES)
    ],
)
def test_the_gradient_of_equal_maxima_goes_to_the_first(
    pool: Callable[[jax.Array], jax.Array], size: tuple[int, int], dtype: Any
) -> None:
    # The images have only three values, mostly zero, so that nearly every window has several
    # maxima.
    x = jnp.maximum(jax.random.randint(jax.random.key(0), (3, *size, 4), -3, 3), 0).astype(dtype)
    (y, (dx,)), (y_by_hand, (dx_by_hand,)) = (
        value_and_gradients(name, pool, x) for name in ("convolution", "parts")
    )
    np.testing.assert_array_equal(y_by_hand, y)
    # A pixel may be the maximum of up to nine windows, whose gradients are summed in another order.
    tolerance = 1e-6 if dtype == jnp.float32 else 2**-6
    np.testing.assert_allclose(
        np.asarray(dx_by_hand, np.float32),
        np.asarray(dx, np.float32),
        rtol=tolerance,
        atol=tolerance,
    )


def test_a_nan_is_not_lost_in_pooling() -> None:
    for position in range(9):
        x = jnp.zeros((1, 3, 3, 1)).at[0, position // 3, position % 3].set(jnp.nan)
        with formulation("parts"):
            assert jnp.isnan(max_pool(x, 3, 1, "VALID")).all()


def test_the_platform_chooses_and_can_be_overruled() -> None:
    def program(x: jax.Array) -> str:
        return jax.jit(lambda x: max_pool(x, 3, 2, "SAME")).lower(x).as_text()

    x = jnp.zeros((1, 4, 4, 1))
    assert ("reduce_window" in program(x)) == (jax.default_backend() != "cpu")
    with formulation("convolution"):
        assert "reduce_window" in program(x)
        with formulation("parts"):
            assert "reduce_window" not in program(x)


@pytest.mark.parametrize("name", ["resnest14d", "resnetv2_18", "seresnext26d_32x4d"])
def test_networks_count_the_same(name: str) -> None:
    counts = []
    ways: tuple[Formulation, ...] = ("convolution", *BY_HAND)
    for way in ways:
        with formulation(way):
            counts.append(count_macs(create_model(name), (64, 64, 3)))
    assert len(set(counts)) == 1


def test_the_gradients_of_a_network() -> None:
    model = create_model("resnet26", num_classes=10, width=8)
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    variables = random_variables(model, images)

    def loss_fn(params: Any) -> jax.Array:
        # With train=True, statistics over so few pixels would magnify rounding errors.
        return jnp.mean(model.apply(variables | {"params": params}, images, train=False) ** 2)

    def grads(way: Formulation) -> Any:
        with formulation(way):
            return jax.jit(lambda params: jax.grad(loss_fn)(params))(variables["params"])

    expected = grads("convolution")
    for way in BY_HAND:
        assert tree_deviation(grads(way), expected) < 1e-5


@pytest.mark.parametrize(
    ("batch", "size", "channels", "num_parts"),
    [(16, 56, 64, 8), (16, 28, 128, 4), (16, 14, 256, 2), (16, 7, 512, 1), (1, 56, 64, 1)],
)
def test_parts_are_as_near_to_the_size_of_a_cache_as_a_batch_can_be_divided(
    batch: int, size: int, channels: int, num_parts: int
) -> None:
    x = jnp.zeros((batch, size, size, channels))
    kernel = jnp.zeros((3, 3, channels, channels))
    assert convolution._num_slices(x, kernel, x, 1) == num_parts


def test_plain_derivatives_work_in_forward_mode_too() -> None:
    model = create_model("cifar_resnet20", width=64, stage_sizes=(1,))
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = random_variables(model, images)

    def program(images: jax.Array) -> jax.Array:
        return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    with automatic_gradients():
        _, tangent = jax.jit(lambda x: jax.jvp(program, (x,), (x,)))(images)
    _, gradient = value_and_gradients("parts", program, images)
    cotangent = jax.random.normal(jax.random.key(9), tangent.shape)
    np.testing.assert_allclose(
        jnp.vdot(tangent, cotangent), jnp.vdot(images, gradient[0]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("size", [(16, 12), (15, 12)])
def test_the_stem_on_squares_of_pixels_is_the_same_convolution(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2, *size, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((7, 7, 3, 8)), jnp.float32)

    def outputs(name: Any) -> Any:
        def loss(kernel: jax.Array, images: jax.Array) -> Any:
            y = convolve(images, kernel, (2, 2), ((3, 3), (3, 3)))
            return jnp.sum(jnp.sin(y)), y

        with formulation(name):
            gradients, y = jax.grad(loss, (0, 1), has_aux=True)(kernel, images)
        return gradients, y

    assert tree_deviation(outputs("space_to_depth"), outputs("convolution")) < 1e-5
