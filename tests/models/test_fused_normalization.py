"""Networks whose BatchNorm, additions and ReLU are kernels compute what they compute without."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from resnet_jax import BatchNorm, create_model
from resnet_jax.ops.platform import fused_normalization
from tests.comparison import tree_deviation
from tests.variables import random_variables

TRITON, MOSAIC = "__gpu$xla.gpu.triton", "tpu_custom_call"

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
    expected = layer_results(BatchNorm(), exact, None, activate=activate)
    with fused_normalization("interpreter"):
        layer = BatchNorm(dtype=jnp.bfloat16)
        actual = layer_results(layer, arrays, None, activate=activate)
    assert actual["y"].dtype == actual["gradients"]["x"].dtype == jnp.bfloat16
    assert tree_deviation(actual, expected) < 2**-7


def test_devices_share_statistics_inside_shard_map() -> None:
    arrays = layer_arrays(jnp.float32, with_shortcut=True)
    images = ("x", "weights", "shortcut")
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
    examples = PartitionSpec("data")
    whole = PartitionSpec()
    specs = {name: examples if name in images else whole for name in arrays}

    def results(arrays: Any, *, check: bool) -> Any:
        def local(arrays: Any) -> Any:
            layer = BatchNorm(axis_name="data")
            found = layer_results(layer, arrays, None, activate=True)
            if not check:
                for name in ("scale", "bias"):
                    found["gradients"][name] = jax.lax.psum(found["gradients"][name], "data")
            return found

        out = {"y": examples, "updated": whole, "gradients": specs}
        return jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=out, check_vma=check)(
            arrays
        )

    expected = layer_results(BatchNorm(), arrays, None, activate=True)
    with fused_normalization("interpreter"):
        for check in (False, True):
            actual = jax.jit(partial(results, check=check))(arrays)
            assert tree_deviation(actual, expected) < 2e-6
    # The types of the kernels inside a checked shard_map are right, though nothing can run them.
    with fused_normalization("accelerator"):
        traced = jax.jit(lambda arrays: results(arrays, check=True)).trace(arrays)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert text.count(TRITON) == 3


NETWORKS: dict[str, dict[str, Any]] = {
    "basic": {"name": "resnet18"},
    "bottleneck": {"name": "resnet26"},
    "pre-activation": {"name": "cifar_preact_resnet20"},
    "remat": {"name": "resnet18", "remat": True},
}


def network(name: str, **fields: Any) -> Any:
    return create_model(name, num_classes=3, width=4, stage_sizes=(1, 1), **fields)


def gradients_of(model: Any) -> Callable[..., Any]:
    def loss(params: Any, statistics: Any, images: jax.Array) -> Any:
        variables = {"params": params, "batch_stats": statistics}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.sum(logits * jnp.arange(3.0)), (logits, updated)

    return jax.value_and_grad(loss, has_aux=True)


@pytest.mark.parametrize("fields", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_whole_network_trains_alike(fields: dict[str, Any]) -> None:
    model = network(**fields)
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = random_variables(model, images)
    inputs = variables["params"], variables["batch_stats"], images
    expected = jax.jit(gradients_of(model))(*inputs)
    with fused_normalization("interpreter"):
        jitted = jax.jit(gradients_of(model))
        assert jitted.lower(*inputs).as_text().count("stablehlo.while") > 10
        actual = jitted(*inputs)
    assert tree_deviation(actual, expected) < 1e-4
