"""BatchNorm that is frozen, that has statistics of groups, and that leaves out masked examples."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.module import InterceptorContext
from flax.traverse_util import flatten_dict

from resnet_jax import BatchNorm, create_model
from resnet_jax.config import ModelConfig, SGDConfig, SyntheticConfig, TrainConfig
from resnet_jax.data import Batch
from resnet_jax.models.normalization import GroupNorm, Shift
from resnet_jax.ops.batch_norm import (
    Statistics,
    affine,
    affine_formula,
    normalize,
    normalize_formula,
)
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.setup import check
from resnet_jax.training.state import state_of
from resnet_jax.training.step import make_train_step
from tests.comparison import deviation, tree_deviation
from tests.variables import random_variables


def test_frozen_statistics_are_used_and_kept_in_training() -> None:
    model = create_model("cifar_resnet20", stage_sizes=(1, 1), width=8, freeze_bn=True)
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = random_variables(model, images)

    def loss_fn(params: dict) -> jax.Array:
        logits, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(logits**2)

    train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    evaluate = jax.jit(partial(model.apply, train=False))
    logits, updated = train(variables, images)
    np.testing.assert_array_equal(logits, evaluate(variables, images))
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    grads = jax.jit(jax.grad(loss_fn))(variables["params"])
    assert jnp.any(grads["stage1"]["block1"]["norm1"]["scale"] != 0)
    assert jnp.any(grads["stage1"]["block1"]["norm1"]["bias"] != 0)


def test_layers_can_be_frozen_by_their_paths() -> None:
    frozen = ("stem/norm", "stage1/block1/norm1")
    model = create_model("cifar_resnet20", stage_sizes=(1, 1), width=4)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = random_variables(model, images)

    def freeze(
        call: Callable[..., Any], args: Any, kwargs: dict[str, Any], context: InterceptorContext
    ) -> Any:
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            object.__setattr__(context.module, "frozen", frozen)
        return call(*args, **kwargs)

    with nn.intercept_methods(freeze):
        train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
        _, updated = train(variables, images)
    before, after = (flatten_dict(tree["batch_stats"], sep="/") for tree in (variables, updated))
    kept = {path.rpartition("/")[0] for path in after if np.array_equal(after[path], before[path])}
    assert kept == set(frozen)


def test_frozen_layers_use_running_statistics_and_others_do_not() -> None:
    x = jax.random.normal(jax.random.key(0), (8, 3, 3, 4))

    class Two(nn.Module):
        frozen: Any

        @nn.compact
        def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return tuple(
                BatchNorm(frozen=self.frozen, name=name)(x, train=True) for name in ("a", "b")
            )

    variables = Two(frozen=True).init(jax.random.key(1), x)

    def outputs(frozen: Any) -> Any:
        return Two(frozen).apply(variables, x, mutable=["batch_stats"])[0]

    (a, b), running, batch = outputs(("b",)), outputs(True)[0], outputs(False)[0]
    np.testing.assert_array_equal(a, batch)
    np.testing.assert_array_equal(b, running)
    assert not np.array_equal(running, batch)


@pytest.mark.parametrize("norm", [BatchNorm, partial(GroupNorm, num_groups=2), Shift])
def test_a_layer_without_a_network_tells_its_variables(norm: Any) -> None:
    layer = norm(parent=None)
    variables = layer.init(jax.random.key(0), jnp.ones((2, 3, 3, 4)), train=False)
    assert set(flatten_dict(variables)) == set(layer.leaves)
    assert all(leaf.shape == (4,) for leaf in jax.tree.leaves(variables))


@pytest.mark.usefixtures("tiny_networks")
def test_a_training_step_moves_parameters_and_keeps_frozen_statistics() -> None:
    config = TrainConfig(
        model=ModelConfig("tiny_resnet", freeze_bn=True), data=SyntheticConfig(num_classes=10)
    )
    model, _ = check(config)
    optimizer = create_optimizer(SGDConfig(), 0.1)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    before = state_of(random_variables(model, images), optimizer, ema=False)
    batch = Batch(images, jnp.arange(4), jnp.ones(4, bool))
    train_step = jax.jit(
        make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    )
    after, _ = train_step(before, batch, jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)
    assert jnp.any(after.params["head"]["kernel"] != before.params["head"]["kernel"])


def normalized(
    images: np.ndarray, group_size: int | None, mask: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the output and the running statistics of a new layer with a decay of 0.75."""
    layer = BatchNorm(momentum=0.75, group_size=group_size)

    @jax.jit
    def init_and_apply(images: np.ndarray, mask: np.ndarray | None) -> Any:
        variables = layer.init(jax.random.key(0), images, train=False)
        return layer.apply(variables, images, train=True, mask=mask, mutable=["batch_stats"])

    output, updated = init_and_apply(images, mask)
    return np.asarray(output), updated["batch_stats"]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (3 * rng.standard_normal((12, 5, 4, 6)) + 2).astype(np.float32)


@pytest.mark.parametrize("group_size", [None, 12, 4, 3, 1])
def test_groups_are_normalized_by_their_own_moments(
    images: np.ndarray, group_size: int | None
) -> None:
    output, stats = normalized(images, group_size)
    groups = images.astype(np.float64).reshape(-1, group_size or 12, 5, 4, 6)
    mean = groups.mean(axis=(1, 2, 3), keepdims=True)
    var = groups.var(axis=(1, 2, 3), keepdims=True)
    expected = (groups - mean) / np.sqrt(var + 1e-5)
    assert deviation(output, expected.reshape(images.shape)) < 1e-6
    assert deviation(stats["mean"], 0.25 * mean.mean(axis=(0, 1, 2, 3))) < 1e-6
    assert deviation(stats["var"], 0.75 + 0.25 * var.mean(axis=(0, 1, 2, 3))) < 1e-6


@pytest.mark.parametrize("group_size", [None, 4])
def test_what_the_mask_hides_does_not_count(images: np.ndarray, group_size: int | None) -> None:
    # The mask keeps all images of the first group of four, some of the second and none of the
    # third.
    mask = np.arange(12) < 6
    padded = np.where(mask[:, None, None, None], images, np.float32(np.inf))
    output, stats = normalized(padded, group_size, mask)
    parts = [images[:6]] if group_size is None else [images[:4], images[4:6]]
    moments = [
        (part.mean(axis=(0, 1, 2), dtype=np.float64), part.var(axis=(0, 1, 2), dtype=np.float64))
        for part in parts
    ]
    expected = np.concatenate(
        [(part - m) / np.sqrt(v + 1e-5) for part, (m, v) in zip(parts, moments, strict=True)]
    )
    assert deviation(output[:6], expected) < 1e-6
    shares = [len(part) / 6 for part in parts]
    mean, var = (np.average(each, axis=0, weights=shares) for each in zip(*moments, strict=True))
    assert deviation(stats["mean"], 0.25 * mean) < 1e-6
    assert deviation(stats["var"], 0.75 + 0.25 * var) < 1e-6


@pytest.mark.parametrize(("name", "remat"), [("cifar_resnet20", True), ("wrn_16_8", False)])
def test_a_padded_batch_trains_as_the_batch_itself(name: str, remat: bool) -> None:
    model = create_model(name, stage_sizes=(1, 1), width=8, remat=remat)
    images = jax.random.normal(jax.random.key(0), (6, 8, 8, 3))
    variables = random_variables(model, images)
    padded = jnp.concatenate([images, jnp.full((2, 8, 8, 3), 7.0)])
    mask = jnp.arange(8) < 6

    @jax.jit
    def step(params: dict, images: jax.Array, mask: jax.Array | None) -> tuple[dict, dict]:
        def loss_fn(params: dict) -> tuple[jax.Array, dict]:
            logits, updated = model.apply(
                variables | {"params": params},
                images,
                train=True,
                mask=mask,
                mutable=["batch_stats"],
            )
            return jnp.sum(logits[:6] ** 2), updated["batch_stats"]

        return jax.grad(loss_fn, has_aux=True)(params)

    grads, stats = step(variables["params"], padded, mask)
    expected_grads, expected_stats = step(variables["params"], images, None)
    assert tree_deviation(stats, expected_stats) < 1e-5
    assert tree_deviation(grads, expected_grads) < 1e-4


def test_statistics_are_float32_under_bfloat16() -> None:
    images = 100 + jax.random.normal(jax.random.key(0), (64, 8, 8, 2), jnp.bfloat16)
    layer = BatchNorm(momentum=0.0, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), images, train=False)
    output, updated = layer.apply(variables, images, train=True, mutable=["batch_stats"])
    assert output.dtype == jnp.bfloat16
    stats = updated["batch_stats"]
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
    assert deviation(stats["mean"], np.mean(np.asarray(images, np.float64), (0, 1, 2))) < 1e-6
    assert deviation(stats["var"], np.var(np.asarray(images, np.float64), (0, 1, 2))) < 1e-2


def test_a_batch_without_whole_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 12 images has no whole groups of 5"):
        normalized(np.ones((12, 2, 2, 3), np.float32), 5)


def assert_equal_gradients(
    written: Callable[..., jax.Array],
    formula: Callable[..., jax.Array],
    inputs: Sequence[jax.Array],
    key: jax.Array,
) -> None:
    """Check results and gradients: shapes and types are equal, and values up to rounding."""

    @jax.jit
    def results(*inputs: jax.Array) -> Any:
        expected, plain = jax.vjp(formula, *inputs)
        actual, transposed = jax.vjp(written, *inputs)
        cotangent = jax.random.normal(key, expected.shape, expected.dtype)
        return (actual, *transposed(cotangent)), (expected, *plain(cotangent))

    actual, expected = results(*inputs)
    for left, right in zip(actual, expected, strict=True):
        assert (left.shape, left.dtype) == (right.shape, right.dtype)
        tolerance = 2**-7 if left.dtype == jnp.bfloat16 else 1e-5
        left, right = (np.asarray(array, np.float64) for array in (left, right))
        np.testing.assert_allclose(left, right, atol=tolerance * abs(right).max())


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "exact"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(8, 3, 3, 4), (2, 4, 3, 3, 4)], ids=["batch", "groups"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_written_gradient_is_that_of_the_formula(
    shape: tuple[int, ...], dtype: Any, masked: bool, fast: bool
) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    axis = len(shape) - 4
    x = 1 + jax.random.normal(keys[0], shape, dtype)
    scale, bias = (jax.random.normal(key, shape[-1:]) for key in keys[1:3])
    mask = jnp.arange(8).reshape(shape[: axis + 1]) % 3 > 0 if masked else None

    def normalized(function: Any, *inputs: jax.Array) -> jax.Array:
        return function(*inputs, mask, Statistics(1e-5, axis, fast), dtype)[0]

    written, formula = (partial(normalized, each) for each in (normalize, normalize_formula))
    assert_equal_gradients(written, formula, (x, scale, bias), keys[3])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_written_gradient_of_frozen_statistics_is_that_of_the_formula(dtype: Any) -> None:
    keys = jax.random.split(jax.random.key(0), 5)
    x = jax.random.normal(keys[0], (8, 3, 3, 4), dtype)
    channels = [jax.random.normal(key, (4,)) for key in keys[1:4]]
    assert_equal_gradients(affine, affine_formula, (x, *channels), keys[4])


def test_running_statistics_have_no_gradient(images: np.ndarray) -> None:
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), images, train=False)

    def running(images: jax.Array) -> jax.Array:
        _, updated = layer.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.sum(updated["batch_stats"]["mean"])

    assert not jnp.any(jax.grad(running)(images))


def test_double_precision_is_kept_by_the_written_gradient() -> None:
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (8, 3, 3, 4), jnp.float64)
        scale = jnp.full(4, 0.3, jnp.float32)

        def normalized(x: jax.Array, scale: jax.Array) -> jax.Array:
            return normalize(x, scale, scale, None, Statistics(1e-5), jnp.float64)[0]

        y, transposed = jax.vjp(normalized, x, scale)
        assert y.dtype == jnp.float64
        assert transposed(y)[0].dtype == jnp.float64
        assert transposed(y)[1].dtype == jnp.float32
