"""Regularization, blurring and initial values that published recipes ask of a network."""

import pickle
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import BatchNorm, create_model
from resnet_jax.models.layers import (
    blurred_conv,
    conv,
    drop_block,
    fan_in_kernel,
    uniform_scale,
    zero_padded_blurred_max_pool,
)
from tests.comparison import deviation
from tests.golden import golden
from tests.models import ingredient_cases as cases
from tests.models.test_options import abstract, golden_variables


def bernoulli(key: jax.Array, probability: float, shape: tuple[int, ...]) -> jax.Array:
    """Stand in for `jax.random.bernoulli` with the draws of the reference."""
    del key
    return jnp.asarray(cases.noise(shape, probability))


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(jax.random, "bernoulli", bernoulli)
    return np.load(cases.VALUES)


@pytest.mark.parametrize("number", range(len(cases.DROP_BLOCK)))
def test_drop_block_equals_timms(number: int, expected: Any) -> None:
    case = cases.DROP_BLOCK[number]
    with jax.enable_x64(True):
        y = drop_block(
            jnp.asarray(cases.pixels(case)),
            jax.random.key(0),
            rate=case.rate,
            size=case.size,
            gamma_scale=case.gamma_scale,
        )
        y = np.asarray(y)
    assert y.dtype == np.float64
    assert 0 < np.mean(y == 0) < 1
    np.testing.assert_allclose(y, expected[f"drop_block/{number}"], rtol=1e-7)


@pytest.mark.parametrize("rates", cases.RATES)
def test_a_network_drops_where_timms_does(rates: dict[str, Any], expected: Any) -> None:
    model = create_model(cases.NETWORK, num_classes=10, **rates)
    variables, images = golden_variables(model), golden.images(8, 96)

    rngs = {"dropout": jax.random.key(0)}
    train = jax.jit(partial(model.apply, train=True, rngs=rngs, mutable=["batch_stats"]))
    logits, _ = train(variables, images)
    assert deviation(logits, expected[next(iter(rates))]) < 1e-4

    plain = create_model(cases.NETWORK, num_classes=10)
    evaluations = [jax.jit(partial(m.apply, train=False)) for m in (model, plain)]
    dropped, undropped = (function.lower(variables, images) for function in evaluations)
    assert dropped.as_text() == undropped.as_text()


@pytest.mark.parametrize("kind", cases.BLURRED)
def test_blurred_networks_equal_those_of_ffcv_and_composer(kind: str, expected: Any) -> None:
    pool = {"stem_pool": zero_padded_blurred_max_pool} if kind == "composer" else {}
    sizes = (1, 1, 1, 1)
    model = create_model("resnet18", num_classes=10, stage_sizes=sizes, conv=blurred_conv, **pool)
    variables, images = golden_variables(model), golden.images(2, cases.BLURRED_SIZE)
    logits = jax.jit(partial(model.apply, train=False))(variables, images)
    assert deviation(logits, expected[kind]) < 2e-5


def test_drop_block_keeps_the_mean_and_follows_the_batch() -> None:
    x = jnp.ones((64, 14, 14, 1))
    y = drop_block(x, jax.random.key(0), rate=0.1, size=3)
    np.testing.assert_allclose(jnp.mean(y), 1, rtol=1e-5)
    assert 0.07 < jnp.mean(y == 0) < 0.13


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnetv2_18", {}),
        ("resnest14d", {}),
        ("resnet18", {"stage_sizes": (2, 2)}),
    ],
)
def test_drop_block_is_refused_where_it_does_nothing(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"drop_block_rate .*; leave it at 0\.0"):
        create_model(name, drop_block_rate=0.1, **options)


def test_stochastic_depth_rises_from_stage_to_stage_as_in_tensorflow() -> None:
    model = create_model("resnetrs50", drop_path_rate=0.1, drop_path_rule="stage")
    bound = model.bind(abstract(model))
    rates = [rate for stage in bound.stages for rate in stage.drop_path_rates]
    expected = [0.04] * 3 + [0.06] * 4 + [0.08] * 6 + [0.1] * 3
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_without_decay_the_running_statistics_are_those_of_the_batch() -> None:
    x = 3 * jax.random.normal(jax.random.key(0), (8, 4, 4, 5)) + 1
    norm = BatchNorm(momentum=0.0)
    variables = norm.init(jax.random.key(1), x, train=False)
    _, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(updated["batch_stats"]["mean"], x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], x.var((0, 1, 2)), rtol=1e-5)


def test_initial_values_have_the_moments_of_the_recipes() -> None:
    model = create_model(
        "resnet18",
        stage_sizes=(1, 1),
        num_classes=7,
        conv=partial(conv, kernel_init=fan_in_kernel),
        norm_scale_init=uniform_scale,
        head_bias_init=-10.0,
    )
    init = jax.jit(partial(model.init, train=False))
    params = init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    np.testing.assert_array_equal(params["head"]["bias"], np.full(7, -10, np.float32))
    # From 64 to 128 channels, fan-in and fan-out differ.
    kernel = params["stage2"]["block1"]["conv1"]["kernel"]
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / (9 * 64)), rtol=0.02)
    assert abs(np.mean(kernel)) < 1e-3
    block = params["stage2"]["block1"]
    scales = np.concatenate([block[f"norm{i}"]["scale"] for i in (1, 2)])
    assert scales.min() >= 0
    assert scales.max() < 1
    np.testing.assert_allclose([scales.mean(), scales.std()], [1 / 2, 12**-0.5], atol=0.05)
    assert not any(block[f"norm{i}"]["bias"].any() for i in (1, 2))


def test_networks_with_these_options_can_be_pickled_and_compared() -> None:
    options: dict[str, Any] = {
        "conv": partial(blurred_conv, kernel_init=fan_in_kernel),
        "norm_scale_init": uniform_scale,
        "drop_block_rate": 0.1,
    }
    model = create_model("resnet18", **options)
    assert pickle.loads(pickle.dumps(model)) == model == create_model("resnet18", **options)
    assert hash(model) == hash(create_model("resnet18", **options))
    assert model != create_model("resnet18", **options | {"drop_block_rate": 0.2})
