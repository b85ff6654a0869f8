"""Networks inside the transformations and modes of JAX that other projects use."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from resnet_jax import BatchNorm, GroupNorm, ResNet, create_model, list_models
from tests.comparison import deviation, tree_deviation
from tests.variables import random_variables

SHARDED, REPLICATED = PartitionSpec("data"), PartitionSpec()

KINDS: dict[str, Callable[[], ResNet]] = {
    "plain": lambda: tiny("resnet18"),
    "remat": lambda: tiny("resnet50d", remat=True),
    "group": lambda: tiny("resnet18", norm=partial(GroupNorm, num_groups=4)),
    "frozen": lambda: tiny("resnet18", freeze_bn=True),
    "scan": lambda: tiny("cifar_resnet32", stage_sizes=(6,), scan=True),
}


def tiny(name: str, **overrides: Any) -> ResNet:
    return create_model(name, **({"num_classes": 5, "width": 8, "stage_sizes": (1,)} | overrides))


def mesh_of_two(axis_type: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((2,), ("data",), axis_types=(axis_type,), devices=jax.devices()[:2])


def images_and_variables(model: ResNet, size: int = 16) -> tuple[jax.Array, Any]:
    images = jax.random.normal(jax.random.key(0), (4, size, size, 3))
    return images, random_variables(model, images)


def gradients_of(model: ResNet) -> Callable[[Any, jax.Array], Any]:
    """Return a function of the variables and the images: gradients of both, and statistics."""

    def loss(params: Any, images: jax.Array, stats: Any) -> tuple[jax.Array, Any]:
        logits, updated = model.apply(
            {"params": params} | stats, images, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(logits**2), dict(updated)

    def gradients(variables: Any, images: jax.Array) -> Any:
        stats = {key: value for key, value in variables.items() if key != "params"}
        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], images, stats)

    return gradients


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_within_shard_map(kind: str) -> None:
    model = KINDS[kind]()
    images, variables = images_and_variables(model)
    gradients = gradients_of(model)

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh_of_two(AxisType.Auto),
        in_specs=(REPLICATED, SHARDED),
        out_specs=(REPLICATED, SHARDED),
    )
    def sharded(variables: Any, images: jax.Array) -> Any:
        (of_params, of_images), _ = gradients(variables, images)
        return of_params, of_images

    of_params, of_images = sharded(variables, images)
    halves = [jax.jit(gradients)(variables, half)[0] for half in jnp.split(images, 2)]
    expected = jax.tree.map(jnp.add, *(params for params, _ in halves))
    assert tree_deviation(of_params, expected) < 1e-5
    assert deviation(of_images, jnp.concatenate([images for _, images in halves])) < 1e-5


def over_devices(function: Any, *, mapped: str, axis: str) -> Callable[..., Any]:
    """Return a function of replicated variables and images of four devices, [4, N, H, W, C]."""
    if mapped == "pmap":
        return jax.pmap(function, axis_name=axis, in_axes=(None, 0), devices=jax.devices()[:4])

    def of_one(variables: Any, images: jax.Array) -> Any:
        # One device's results, with an axis in front to stack them along, as `jax.pmap` does.
        results = function(variables, images[0])
        return jax.tree.map(lambda array: array[None], results)

    mesh = jax.make_mesh((4,), (axis,), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    specs = (PartitionSpec(), PartitionSpec(axis))
    return jax.jit(
        jax.shard_map(of_one, mesh=mesh, in_specs=specs, out_specs=specs[1], check_vma=False)
    )


@pytest.mark.parametrize("groups", [None, [[0, 1], [2, 3]]], ids=["all", "pairs"])
@pytest.mark.parametrize("mapped", ["pmap", "shard_map"])
def test_statistics_shared_over_an_axis_are_those_of_flax(mapped: str, groups: Any) -> None:
    x = 2 + jax.random.normal(jax.random.key(0), (4, 2, 3, 3, 6))
    options: dict[str, Any] = {"axis_name": "i", "axis_index_groups": groups}
    ours = BatchNorm(**options)
    theirs = nn.BatchNorm(momentum=0.9, use_running_average=False, **options)
    params = {"scale": jnp.linspace(0.5, 2, 6), "bias": jnp.linspace(-1, 1, 6)}
    variables = {"params": params, "batch_stats": {"mean": jnp.zeros(6), "var": jnp.ones(6)}}

    def results(apply: Any) -> Any:
        def loss(params: Any, x: jax.Array) -> Any:
            y, updated = apply(variables | {"params": params}, x, mutable=["batch_stats"])
            weights = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
            return jnp.sum(y**3 * weights), (y, updated)

        def both(params: Any, x: jax.Array) -> Any:
            gradients, (y, updated) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
            return gradients, y, updated["batch_stats"]

        return over_devices(both, mapped=mapped, axis="i")(params, x)

    actual, expected = results(partial(ours.apply, train=True)), results(theirs.apply)
    assert tree_deviation(actual[0], expected[0]) < 1e-5
    assert deviation(actual[1], expected[1]) < 1e-5
    assert tree_deviation(actual[2], expected[2]) < 1e-5


def test_a_network_with_shared_statistics_has_the_gradients_of_the_whole_batch() -> None:
    model = tiny("resnet18")
    images, variables = images_and_variables(model)
    (of_params, _), updated = jax.jit(gradients_of(model))(variables, images)

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh_of_two(AxisType.Auto),
        in_specs=(REPLICATED, SHARDED),
        out_specs=REPLICATED,
    )
    def sharded(variables: Any, images: jax.Array) -> Any:
        # The types tell that the statistics are equal on both devices: nothing is averaged here.
        (of_params, _), updated = gradients_of(model.clone(bn_axis_name="data"))(variables, images)
        return jax.tree.map(lambda gradient: gradient / 2, of_params), updated

    actual, actual_updated = sharded(variables, images)
    assert tree_deviation(actual, of_params) < 1e-4
    assert tree_deviation(actual_updated, updated) < 1e-5


def test_masked_statistics_are_shared_over_an_axis() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 2, 3, 3, 6))
    mask = jnp.array([[True, True], [True, False], [False, False], [True, True]])
    layer = BatchNorm(axis_name="i")
    variables = layer.init(jax.random.key(0), x[0], train=False)
    apply = partial(layer.apply, variables, train=True, mutable=["batch_stats"])
    y, updated = jax.pmap(lambda x, mask: apply(x, mask=mask), axis_name="i")(x, mask)
    flat = x.reshape(8, 3, 3, 6)
    expected, whole = BatchNorm().apply(
        variables, flat, train=True, mask=mask.reshape(8), mutable=["batch_stats"]
    )
    assert deviation(y.reshape(flat.shape), expected) < 1e-5
    each = jax.tree.map(lambda array: jnp.broadcast_to(array, (4, *array.shape)), whole)
    assert tree_deviation(updated["batch_stats"], each["batch_stats"]) < 1e-5


def test_groups_of_examples_and_an_axis_of_devices_exclude_each_other() -> None:
    layer = BatchNorm(group_size=2, axis_name="i")
    with pytest.raises(ValueError, match=r"group_size=2 and axis_name='i'; give only one"):
        layer.init(jax.random.key(0), jnp.ones((4, 2, 2, 3)), train=True)


@pytest.mark.parametrize("kind", ["plain", "remat", "scan"])
def test_explicitly_sharded_images(kind: str) -> None:
    model = KINDS[kind]()
    images, variables = images_and_variables(model)
    gradients = jax.jit(gradients_of(model))
    expected = gradients(variables, images)
    with jax.set_mesh(mesh_of_two(AxisType.Explicit)):
        sharded = jax.device_put(images, SHARDED)
        actual = gradients(jax.device_put(variables, REPLICATED), sharded)
    (of_params, of_images), updated = jax.device_get(actual)
    assert tree_deviation(of_params, expected[0][0]) < 1e-4
    assert deviation(of_images, expected[0][1]) < 1e-4
    assert tree_deviation(updated, expected[1]) < 1e-5


@pytest.mark.parametrize("name", ["resnest14d", "skresnet18", "resnetv2_50x1_bit", "resnetblur18"])
def test_other_networks_evaluate_explicitly_sharded_images(name: str) -> None:
    model = tiny(name, width=64)
    images, variables = images_and_variables(model)
    apply = jax.jit(partial(model.apply, train=False))
    with jax.set_mesh(mesh_of_two(AxisType.Explicit)):
        sharded = jax.device_put(images, SHARDED)
        actual = apply(jax.device_put(variables, REPLICATED), sharded)
    assert deviation(jax.device_get(actual), apply(variables, images)) < 1e-5


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", "b, 32, 32, 3"),
        ("resnet18", "b, h, w, 3"),
        ("resnet50d", "b, h, w, 3"),
        ("resnetblur18", "b, h, w, 3"),
        ("cifar_resnet20", "2, h, w, 3"),
        ("resnetaa50", "b, 32*h, 32*w, 3"),
    ],
)
def test_exports_with_symbolic_sizes(name: str, shape: str) -> None:
    model = tiny(name, stage_sizes=(1, 1))
    images, variables = images_and_variables(model, size=32)
    images = images[:2]
    apply = jax.jit(partial(model.apply, train=False))
    constraints = ("h >= 8", "w >= 8") if " h" in shape else ()
    sizes = jax.export.symbolic_shape(shape, constraints=constraints)
    abstract = jax.eval_shape(lambda variables: variables, variables)
    exported = jax.export.export(apply, platforms=("cpu", "cuda", "tpu"))(
        abstract, jax.ShapeDtypeStruct(sizes, jnp.float32)
    )
    loaded = jax.export.deserialize(exported.serialize())
    assert deviation(loaded.call(variables, images), apply(variables, images)) < 1e-5


def test_an_odd_size_fits_a_symbolic_export() -> None:
    model = tiny("resnet50d", stage_sizes=(1, 1))
    images, variables = images_and_variables(model, size=37)
    apply = jax.jit(partial(model.apply, variables, train=False))
    sizes = jax.export.symbolic_shape("4, h, w, 3", constraints=("h >= 8", "w >= 8"))
    exported = jax.export.export(apply)(jax.ShapeDtypeStruct(sizes, jnp.float32))
    assert deviation(exported.call(images), apply(images)) < 1e-5


@pytest.mark.parametrize("kind", ["plain", "remat"])
def test_a_training_gradient_is_exported_with_a_symbolic_batch(kind: str) -> None:
    model = KINDS[kind]()
    images, variables = images_and_variables(model)
    gradients = jax.jit(gradients_of(model))
    sizes = jax.export.symbolic_shape("b, 16, 16, 3")
    abstract = jax.eval_shape(lambda variables: variables, variables)
    exported = jax.export.export(gradients)(abstract, jax.ShapeDtypeStruct(sizes, jnp.float32))
    actual, expected = exported.call(variables, images), gradients(variables, images)
    assert tree_deviation(actual[0][0], expected[0][0]) < 1e-4
    assert tree_deviation(actual[1], expected[1]) < 1e-5


def test_every_network_is_pickled_and_copied() -> None:
    for name in list_models():
        model = create_model(name)
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert other == model
            assert hash(other) == hash(model)


def one_of_each_kind() -> list[ResNet]:
    """Return small networks that together have every kind of layer."""
    names = ("resnet18d", "skresnet18", "resnest14d", "seresnetaa50d", "resnetblur50", "resnetrs50")
    others = ("ecaresnet26t", "resnetv2_50x1_bit", "resnetv2_50d_gn", "cifar_resnet20", "wrn_16_8")
    more = ("res2next50", "resnetv2_50d_evos", "resnetv2_50d_frn", "nf_seresnet26", "resnet50_clip")
    fields: dict[str, Any] = {"width": 64, "drop_path_rate": 0.1, "dropout_rate": 0.1}
    return [
        *(tiny(name, **fields) for name in (*names, *others, *more)),
        *(tiny("resnet18", ibn=ibn, **fields) for ibn in ("a", "b")),
    ]


def traced_types(model: ResNet, dtype: Any) -> tuple[Any, Any]:
    """Return the variables and the results of training and evaluation, without computing them."""
    model = model.clone(dtype=dtype)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(partial(model.init, train=False), key, images)

    def results(variables: Any, images: jax.Array, key: jax.Array) -> Any:
        def loss(variables: Any) -> jax.Array:
            logits, _ = model.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            return jnp.sum(logits)

        return jax.grad(loss)(variables), model.apply(variables, images, train=False)

    return variables, jax.eval_shape(results, variables, images, key)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_strict_modes_of_jax_change_nothing(dtype: Any) -> None:
    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        for model in one_of_each_kind():
            for leaf in jax.tree.leaves(traced_types(model, dtype)):
                assert leaf.dtype == jnp.float32, model


@pytest.mark.parametrize("dtype", ["bf16", jnp.int8, jnp.complex64, None])
def test_types_that_cannot_compute_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16"):
        create_model("resnet18", dtype=dtype)


def test_two_passes_are_exact_where_the_mean_is_large() -> None:
    x = 3000 + jax.random.normal(jax.random.key(0), (64, 8, 8, 2))
    layer = BatchNorm(use_fast_variance=False)
    variables = layer.init(jax.random.key(0), x, train=False)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return layer.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    wide = np.asarray(x, np.float64)
    centered = wide - wide.mean((0, 1, 2))
    expected = centered / np.sqrt((centered**2).mean((0, 1, 2)) + 1e-5)
    # One ulp of 3000 is 2.4e-4 of the standard deviation.
    assert np.max(np.abs(apply(variables, x) - expected)) < 1e-3
    weights = np.cos(np.arange(x.size)).reshape(x.shape)
    gradients = jax.grad(lambda v: jnp.sum(apply(v, x) * weights))(variables)
    of_scale = np.sum(weights * expected, (0, 1, 2))
    scale = np.sum(np.abs(weights * expected), (0, 1, 2))
    assert np.all(np.abs(gradients["params"]["scale"] - of_scale) < 1e-5 * scale)
