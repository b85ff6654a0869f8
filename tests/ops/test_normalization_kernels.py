"""The kernels of BatchNorm, addition and ReLU, run by Pallas's interpreter next to their formulas.

Without a GPU and a TPU, whether they compile is tested up to Triton's and Mosaic's own input.
"""

import re
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from resnet_jax.ops import tiles
from resnet_jax.ops.normalization_kernels import Kernel, Pass, run
from resnet_jax.ops.tiles import Target, tiling
from tests.comparison import deviation

FLOAT, HALF = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)

TRITON, MOSAIC = "__gpu$xla.gpu.triton", "tpu_custom_call"


def kernels_of(dtype: Any) -> dict[str, tuple[Kernel, int, int]]:
    """Return kernels by name, each with its number of arrays of images and of vectors."""
    return {
        "apply": (Kernel(Pass.APPLY, False, (dtype,)), 1, 3),
        "apply, relu": (Kernel(Pass.APPLY, True, (dtype,)), 1, 3),
        "apply, shortcut": (Kernel(Pass.APPLY, True, (dtype,)), 2, 3),
        "sums": (Kernel(Pass.SUMS, False), 2, 3),
        "sums, relu": (Kernel(Pass.SUMS, True), 2, 3),
        "sums, shortcut": (Kernel(Pass.SUMS, True), 3, 3),
        "gradient": (Kernel(Pass.GRADIENTS, False, (dtype,)), 2, 5),
        "gradient, relu": (Kernel(Pass.GRADIENTS, True, (dtype,)), 2, 3),
        "gradients, shortcut": (Kernel(Pass.GRADIENTS, True, (dtype, dtype)), 3, 5),
    }


NAMES = list(kernels_of(FLOAT))


def arrays(
    shape: tuple[int, int, int], dtype: Any, images: int, vectors: int, *, shared: bool
) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(sum(shape) + images)
    number = 1 if shared else shape[0]
    return (
        *(jnp.asarray(rng.normal(size=shape), dtype) for _ in range(images)),
        jnp.asarray(rng.normal(size=(number, vectors, shape[2])), jnp.float32),
    )


def check(
    name: str, shape: tuple[int, int, int], dtype: Any, target: Target, *, shared: bool = True
) -> None:
    kernel, images, vectors = kernels_of(dtype)[name]
    inputs = arrays(shape, dtype, images, vectors, shared=shared)
    actual = jax.jit(partial(kernel.compiled, target))(*inputs)
    expected = jax.jit(kernel.formula)(*inputs)
    assert [(x.shape, x.dtype) for x in actual] == [(x.shape, x.dtype) for x in expected]
    for ours, theirs in zip(actual, expected, strict=True):
        # The last bit of bfloat16 may differ where XLA contracts a product and a sum.
        assert deviation(ours, theirs) < (1e-6 if ours.dtype == FLOAT else 2**-8)


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_computes_its_formula(name: str) -> None:
    # Neither number is a power of two, so that tiles reach beyond the array.
    check(name, (2, 5, 6), HALF if "shortcut" in name else FLOAT, "interpreter")


@pytest.mark.parametrize("name", ["sums, shortcut", "gradients, shortcut"])
@pytest.mark.parametrize("target", ["interpreter", "mosaic interpreter"])
@pytest.mark.parametrize(("pixels", "channels"), [(7, 24), (33, 16)])
def test_arrays_of_several_tiles_are_computed_once_each(
    name: str, target: Target, pixels: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value in {
        "_TRITON_ELEMENTS": 32,
        "_TRITON_COLUMNS": 8,
        "_TRITON_STEPS": 3,
        "_MOSAIC_ROWS": 8,
        "_MOSAIC_COLUMNS": 16,
    }.items():
        monkeypatch.setattr(tiles, limit, value)
    check(name, (3, pixels, channels), FLOAT, target, shared=False)


def test_not_a_number_stays_one() -> None:
    # Triton's maximum would return 0, and the trainer would not notice that a run has diverged.
    kernel = Kernel(Pass.APPLY, True, (FLOAT,))
    x = jnp.asarray([[[jnp.nan, 1.0]]])
    vectors = jnp.asarray([[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]])
    [y] = kernel.compiled("interpreter", x, vectors)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("target", ["interpreter", "mosaic interpreter"])
def test_the_tiles_of_every_layer_cover_it(target: Target, shared: bool) -> None:
    sizes = [1, 4, 49, 196, 784, 3136, 12544, 23 * 31]
    widths = [3, 16, 24, 26, 64, 104, 160, 256, 512, 2048, 4096]
    for pixels, channels in product(sizes, widths):
        found = tiling(pixels, channels, target, sums=shared)
        assert found.grid[0] * found.columns >= channels > (found.grid[0] - 1) * found.columns
        assert found.grid[1] * found.block_rows >= pixels > (found.grid[1] - 1) * found.block_rows
        if target == "interpreter":
            assert all(size & (size - 1) == 0 for size in (found.rows, found.columns))
        else:
            # Registers have 16 rows of bfloat16 and 128 columns, or a block is the whole axis.
            assert found.block_rows == pixels or found.block_rows % 16 == 0
            assert found.columns == channels or found.columns % 128 == 0


def lowered(platform: str, kernel: Kernel, *inputs: Any) -> str:
    traced = jax.jit(partial(run, kernel, "accelerator")).trace(*inputs)
    return traced.lower(lowering_platforms=(platform,)).as_text()


# Pixels and channels of the first and last layers of CIFAR and ImageNet networks, and odd ones.
LAYERS = [(3136, 64), (49, 2048), (1024, 16), (12544, 24), (1, 26), (49, 4096)]


@pytest.mark.parametrize("name", NAMES)
def test_kernels_become_input_of_triton_and_mosaic(name: str) -> None:
    # Each kernel is tried with a third of the layers, and each layer with three kernels.
    layers = LAYERS[NAMES.index(name) % 3 :: 3]
    for (pixels, channels), dtype in zip(layers, (HALF, FLOAT), strict=True):
        kernel, images, vectors = kernels_of(dtype)[name]
        shapes = [jax.ShapeDtypeStruct((4, pixels, channels), dtype)] * images
        shapes += [jax.ShapeDtypeStruct((1, vectors, channels), FLOAT)]
        for platform, expected in (("cuda", [TRITON]), ("tpu", [MOSAIC]), ("cpu", [])):
            text = lowered(platform, kernel, *shapes)
            assert re.findall(r"custom_call @(\S+)\(", text) == expected


def mesh() -> Mesh:
    return Mesh(np.asarray(jax.devices()), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("name", ["apply, shortcut", "sums, shortcut", "gradients, shortcut"])
@pytest.mark.parametrize("shared", [True, False])
def test_devices_keep_their_examples(name: str, shared: bool) -> None:
    kernel, images, vectors = kernels_of(FLOAT)[name]
    inputs = arrays((16, 3, 4), FLOAT, images, vectors, shared=shared)
    examples = NamedSharding(mesh(), PartitionSpec("data"))
    whole = NamedSharding(mesh(), PartitionSpec())
    shardings = [*[examples] * images, whole if shared else examples]
    compute = jax.jit(lambda *x: run(kernel, "interpreter", *x), in_shardings=shardings)
    compiled = compute.lower(*inputs).compile()
    assert not re.search("all-gather|all-to-all|collective-permute|all-reduce", compiled.as_text())
    placed = [jax.device_put(x, at) for x, at in zip(inputs, shardings, strict=True)]
    for ours, theirs in zip(compiled(*placed), kernel.formula(*inputs), strict=True):
        assert ours.sharding.spec[0] == "data"
        assert deviation(ours, theirs) < 1e-6


def test_devices_that_hold_channels_keep_them() -> None:
    kernel, images, vectors = kernels_of(FLOAT)["gradients, shortcut"]
    inputs = arrays((2, 3, 16), FLOAT, images, vectors, shared=True)
    channels = NamedSharding(mesh(), PartitionSpec(None, None, "data"))
    compute = jax.jit(lambda *x: run(kernel, "interpreter", *x), in_shardings=channels)
    compiled = compute.lower(*inputs).compile()
    assert "all-gather" not in compiled.as_text()
    placed = [jax.device_put(x, channels) for x in inputs]
    for ours, theirs in zip(compiled(*placed), kernel.formula(*inputs), strict=True):
        assert deviation(ours, theirs) < 1e-6


def test_arrays_that_were_placed_before_are_not_gathered() -> None:
    # Nothing but the arguments tells the mesh.
    kernel, images, vectors = kernels_of(FLOAT)["apply, shortcut"]
    *inputs, of_channels = arrays((8, 3, 4), FLOAT, images, vectors, shared=True)
    placed = [jax.device_put(x, NamedSharding(mesh(), PartitionSpec("data"))) for x in inputs]
    compute = jax.jit(lambda *x: run(kernel, "interpreter", *x))
    assert "all-gather" not in compute.lower(*placed, of_channels).compile().as_text()
    [y] = compute(*placed, of_channels)
    assert deviation(y, kernel.formula(*inputs, of_channels)[0]) < 1e-6


@pytest.mark.parametrize("name", ["apply, shortcut", "sums, shortcut"])
def test_a_batched_kernel_treats_the_new_axis_as_examples(name: str) -> None:
    kernel, images, vectors = kernels_of(FLOAT)[name]
    *inputs, of_channels = arrays((2, 3, 4), FLOAT, images, vectors, shared=True)
    stacked = [jnp.stack([x, 2 * x, x - 1]) for x in inputs]
    # The first array is the same for all; everything else is batched.
    batched = inputs[0], *stacked[1:], jnp.stack([of_channels, -of_channels, of_channels + 1])
    axes = (None, *[0] * images)

    def compute(function: Callable[..., Any]) -> Any:
        return jax.vmap(function, axes)(*batched)

    actual = compute(lambda *x: run(kernel, "interpreter", *x))
    for ours, theirs in zip(actual, compute(kernel.formula), strict=True):
        assert deviation(ours, theirs) < 1e-6
