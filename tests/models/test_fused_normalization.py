"""Networks whose BatchNorm, additions and ReLU are kernels compute what they compute without."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from resnet_jax import BatchNorm, automatic_gradients, create_model
from resnet_jax.ops import platform
from resnet_jax.ops.platform import fused_normalization
from tests.comparison import deviation, tree_deviation
from tests.variables import random_variables

TRITON, MOSAIC = "__gpu$xla.gpu.triton", "tpu_custom_call"

WHOLE, SHARDED = PartitionSpec(), PartitionSpec("data")

LAYERS: dict[str, dict[str, Any]] = {
    "whole batch": {},
    "two passes": {"use_fast_variance": False},
    "groups": {"group_size": 2},
    "frozen": {"frozen": True},
}


def layer_results(
    layer: BatchNorm, arrays: dict[str, Any], mask: Any, *, activate: bool
) -> dict[str, Any]:
    """Return output, new running statistics, and the gradients of all inputs."""
    channels = arrays["x"].shape[-1]
    statistics = {"mean": jnp.full(channels, 0.1), "var": jnp.full(channels, 2.0)}

    def loss(arrays: dict[str, Any]) -> tuple[jax.Array, Any]:
        params = {name: arrays[name] for name in ("scale", "bias")}
        y, updated = layer.apply(
            {"params": params, "batch_stats": statistics},
            arrays["x"],
            train=True,
            mask=mask,
            shortcut=arrays.get("shortcut"),
            activate=activate,
            mutable=["batch_stats"],
        )
        return jnp.sum(arrays["weights"] * y.astype(jnp.float32)), (y, updated)

    (_, (y, updated)), gradients = jax.value_and_grad(loss, has_aux=True)(arrays)
    return {"y": y, "updated": updated, "gradients": gradients}


def layer_arrays(dtype: Any, *, with_shortcut: bool) -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def draw(*shape: int, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    shape = 4, 3, 3, 5
    arrays = {"x": draw(*shape, dtype=dtype) + 1, "weights": draw(*shape)}
    arrays |= {"scale": draw(5) + 2, "bias": draw(5)}
    if with_shortcut:
        arrays["shortcut"] = draw(*shape, dtype=dtype)
    return arrays


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("masked", [False, True])
def test_a_fused_layer_is_normalization_addition_and_relu(
    options: dict[str, Any], masked: bool
) -> None:
    layer = BatchNorm(**options)
    mask = jnp.asarray([True, False, True, True]) if masked else None
    arrays = layer_arrays(jnp.float32, with_shortcut=True)

    def results(arrays: Any) -> Any:
        return layer_results(layer, arrays, mask, activate=True)

    expected = jax.jit(results)(arrays)
    with fused_normalization("interpreter"):
        actual = jax.jit(lambda arrays: results(arrays))(arrays)
    assert tree_deviation(actual, expected) < 2e-6


@pytest.mark.parametrize("activate", [False, True])
def test_a_fused_layer_in_bfloat16_rounds_once(activate: bool) -> None:
    arrays = layer_arrays(jnp.bfloat16, with_shortcut=activate)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), arrays)

    def results(arrays: Any, layer: BatchNorm) -> Any:
        return layer_results(layer, arrays, None, activate=activate)

    expected = jax.jit(partial(results, layer=BatchNorm()))(exact)
    with fused_normalization("interpreter"):
        actual = jax.jit(partial(results, layer=BatchNorm(dtype=jnp.bfloat16)))(arrays)
    assert actual["y"].dtype == actual["gradients"]["x"].dtype == jnp.bfloat16
    assert tree_deviation(actual, expected) < 2**-7


def test_devices_share_statistics_inside_shard_map() -> None:
    arrays = layer_arrays(jnp.float32, with_shortcut=True)
    images = ("x", "weights", "shortcut")
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
    specs = {name: SHARDED if name in images else WHOLE for name in arrays}

    def results(arrays: Any, *, check: bool) -> Any:
        def local(arrays: Any) -> Any:
            layer = BatchNorm(axis_name="data")
            found = layer_results(layer, arrays, None, activate=True)
            if not check:
                for name in ("scale", "bias"):
                    found["gradients"][name] = jax.lax.psum(found["gradients"][name], "data")
            return found

        out = {"y": SHARDED, "updated": WHOLE, "gradients": specs}
        return jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=out, check_vma=check)(
            arrays
        )

    expected = jax.jit(lambda x: layer_results(BatchNorm(), x, None, activate=True))(arrays)
    with fused_normalization("interpreter"):
        for check in (False, True):
            actual = jax.jit(partial(results, check=check))(arrays)
            assert tree_deviation(actual, expected) < 2e-6
    # The types of the kernels inside a checked shard_map are right, though nothing can run them.
    with fused_normalization("accelerator"):
        traced = jax.jit(lambda arrays: results(arrays, check=True)).trace(arrays)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert text.count(TRITON) == 3


def pallas_calls(function: Callable[..., Any], *inputs: Any) -> int:
    # A new function each time, because JAX keeps what it has traced under another setting.
    return str(jax.make_jaxpr(lambda *inputs: function(*inputs))(*inputs)).count("pallas_call")


def test_second_derivatives_and_batches_of_layers_are_alike() -> None:
    arrays = layer_arrays(jnp.float32, with_shortcut=True)
    layer = BatchNorm()

    def squared_gradient(x: jax.Array) -> jax.Array:
        found = layer_results(layer, arrays | {"x": x}, None, activate=True)
        return jnp.sum(found["gradients"]["x"] ** 2)

    batch = jnp.stack([arrays["x"], arrays["shortcut"]])
    expected = jax.jit(jax.vmap(jax.grad(squared_gradient)))(batch)
    with fused_normalization("interpreter"):
        actual = jax.jit(jax.vmap(jax.grad(lambda x: squared_gradient(x))))(batch)
    assert deviation(actual, expected) < 1e-5


def test_arrays_without_kernels_use_the_operations_of_xla() -> None:
    layer = BatchNorm()
    x = jnp.ones((4, 3, 3, 2))
    variables = layer.init(jax.random.key(0), x, train=False)

    def apply(x: jax.Array, layer: BatchNorm = layer) -> jax.Array:
        return layer.apply(variables, x, train=True, activate=True, mutable=["batch_stats"])[0]

    def in_half_precision(x: jax.Array) -> jax.Array:
        return apply(x.astype(jnp.float16), BatchNorm(dtype=jnp.float16))

    def without_relu_at_the_end(x: jax.Array) -> jax.Array:
        return layer.apply(variables, x, train=False, shortcut=x)

    mesh = jax.make_mesh((2, 2), ("data", "model"), devices=jax.devices()[:4])
    partly = jax.shard_map(
        apply, mesh=mesh, in_specs=SHARDED, out_specs=SHARDED, axis_names={"data"}
    )
    explicit = jax.make_mesh(
        (2,), ("data",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2]
    )
    placed = jax.device_put(x, NamedSharding(explicit, SHARDED))
    symbol = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 3, 3, 2"), jnp.float32)
    with fused_normalization("interpreter"):
        assert pallas_calls(apply, x) == 1
        assert pallas_calls(in_half_precision, x) == 0
        assert pallas_calls(without_relu_at_the_end, x) == 0
        with jax.set_mesh(explicit):
            assert pallas_calls(apply, placed) == 0
        with jax.set_mesh(mesh):
            assert pallas_calls(partly, x) == 0
        with automatic_gradients():
            assert pallas_calls(partial(jax.jvp, apply), (x,), (x,)) == 0
        assert "while" not in jax.export.export(jax.jit(apply))(symbol).mlir_module()
    with fused_normalization(), platform.devices(8, "cpu"):
        assert pallas_calls(apply, x) == 0


NETWORKS: dict[str, dict[str, Any]] = {
    "basic, 8 devices": {"name": "resnet18"},
    "bottleneck, remat": {"name": "resnet26", "remat": True},
    "pre-activation, scan": {"name": "cifar_preresnet110", "stage_sizes": (6,), "scan": True},
}


def network(name: str, **fields: Any) -> Any:
    return create_model(name, **({"num_classes": 3, "width": 4, "stage_sizes": (1,)} | fields))


def gradients_of(model: Any) -> Callable[..., Any]:
    def loss(params: Any, statistics: Any, images: jax.Array) -> Any:
        variables = {"params": params, "batch_stats": statistics}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.sum(logits * jnp.arange(3.0)), (logits, updated)

    return jax.value_and_grad(loss, has_aux=True)


def inputs_of(model: Any) -> tuple[Any, Any, jax.Array]:
    images = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    variables = random_variables(model, images)
    return variables["params"], variables["batch_stats"], images


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_network_trains_alike(name: str) -> None:
    model = network(**NETWORKS[name])
    inputs = inputs_of(model)
    expected = jax.jit(gradients_of(model))(*inputs)
    mesh = Mesh(np.asarray(jax.devices()[: 8 if "devices" in name else 1]), ("data",))
    whole, examples = NamedSharding(mesh, WHOLE), NamedSharding(mesh, SHARDED)
    with fused_normalization("interpreter"):
        jitted = jax.jit(gradients_of(model), in_shardings=(whole, whole, examples))
        compiled = jitted.lower(*inputs).compile()
    placed = [jax.device_put(x, at) for x, at in zip(inputs, (whole, whole, examples), strict=True)]
    assert tree_deviation(compiled(*placed), expected) < 1e-4
    # A kernel that XLA does not know how to partition would need all examples.
    assert not re.search("all-gather|all-to-all|collective-permute", compiled.as_text())


def test_a_network_has_kernels_on_accelerators_alone() -> None:
    model = network("resnet18")
    inputs = inputs_of(model)
    # The stem and two convolutions are normalized, with three kernels each.
    expected = {"cuda": (9, 0), "tpu": (0, 9), "cpu": (0, 0)}
    with fused_normalization():
        traced = jax.jit(gradients_of(model)).trace(*inputs)
        for name, numbers in expected.items():
            text = traced.lower(lowering_platforms=(name,)).as_text()
            assert (text.count(f"@{TRITON}("), text.count(f"@{MOSAIC}(")) == numbers
    unchanged = jax.jit(gradients_of(model)).trace(*inputs).lower(lowering_platforms=("cuda",))
    assert "custom_call" not in unchanged.as_text()
