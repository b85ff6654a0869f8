"""Recomputed running statistics equal moments that NumPy computes over all images."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import GroupNorm, ResNet, create_model
from resnet_jax.inference.precise_bn import precise_batch_stats
from tests.comparison import deviation, tree_deviation
from tests.variables import random_variables


@pytest.fixture(scope="module")
def model() -> ResNet:
    return create_model("cifar_resnet20", width=8, stage_sizes=(1, 1, 1))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (2 * rng.standard_normal((24, 8, 8, 3)) + 1).astype(np.float32)


@pytest.fixture(scope="module")
def variables(model: ResNet, images: np.ndarray) -> dict[str, Any]:
    return random_variables(model, images)


def test_the_first_layer_gets_the_moments_of_all_its_values(
    model: ResNet, images: np.ndarray, variables: dict[str, Any]
) -> None:
    # The batches have different sizes, so an average of their averages would be wrong.
    batches = [images[:4], images[4:7], images[7:]]
    stats = precise_batch_stats(model, variables, batches)["batch_stats"]["stem"]["norm"]
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    values = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert deviation(stats["mean"], jnp.mean(values, axis=(0, 1, 2))) < 1e-5
    assert deviation(stats["var"], jnp.var(values, axis=(0, 1, 2))) < 1e-5


def test_every_layer_gets_the_moments_that_numpy_pools(
    model: ResNet, images: np.ndarray, variables: dict[str, Any]
) -> None:
    batches = [images[:4], images[4:12], images[12:]]
    each = []
    train = jax.jit(partial(model.clone(bn_decay=0.0).apply, train=True, mutable=["batch_stats"]))
    for batch in batches:
        _, updated = train(variables, batch)
        each.append(flatten_dict(jax.tree.map(np.float64, updated["batch_stats"])))
    # Dropout, stochastic depth and freezing must not change the result.
    unsteady = model.clone(freeze_bn=True, dropout_rate=0.5, drop_path_rate=0.5)
    pooled = flatten_dict(precise_batch_stats(unsteady, variables, batches)["batch_stats"])
    sizes = [len(batch) for batch in batches]
    for layer in {path[:-1] for path in pooled}:
        means, variances = (
            np.stack([stats[(*layer, name)] for stats in each]) for name in ("mean", "var")
        )
        mean = np.average(means, axis=0, weights=sizes)
        # The law of total variance combines the moments of the batches.
        var = np.average(variances + (means - mean) ** 2, axis=0, weights=sizes)
        assert deviation(pooled[(*layer, "mean")], mean) < 1e-4, layer
        assert deviation(pooled[(*layer, "var")], var) < 1e-4, layer


def test_padding_does_not_count(
    model: ResNet, images: np.ndarray, variables: dict[str, Any]
) -> None:
    mask = np.arange(16) < 12
    padded = [
        (np.concatenate([part, np.full_like(part[:4], 9.0)]), mask)
        for part in (images[:12], images[12:])
    ]
    expected = precise_batch_stats(model, variables, [images[:12], images[12:]])
    precise = precise_batch_stats(model, variables, padded)
    assert tree_deviation(precise["batch_stats"], expected["batch_stats"]) < 1e-5


def test_evaluation_then_equals_training_on_the_same_batch(
    model: ResNet, images: np.ndarray, variables: dict[str, Any]
) -> None:
    precise = precise_batch_stats(model, variables, [images])
    trained, _ = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(
        variables, images
    )
    evaluate = jax.jit(partial(model.apply, train=False))
    before = deviation(evaluate(variables, images), trained)
    after = deviation(evaluate(precise, images), trained)
    assert after < 1e-4 < before
    assert precise["params"] is variables["params"]


def test_the_order_of_the_batches_does_not_matter(
    model: ResNet, images: np.ndarray, variables: dict[str, Any]
) -> None:
    batches = [images[:10], images[10:14], images[14:]]
    forward, backward = (
        precise_batch_stats(model, variables, order)["batch_stats"]
        for order in (batches, batches[::-1])
    )
    assert tree_deviation(forward, backward) < 1e-6


@pytest.mark.parametrize(
    "rate", ["drop_path_rate", "dropout_rate", "block_dropout_rate", "drop_block_rate"]
)
def test_nothing_is_dropped(rate: str, images: np.ndarray) -> None:
    if rate == "block_dropout_rate":
        model = create_model("wrn_16_8", num_classes=3, stage_sizes=(1,))
    else:
        model = create_model("resnet18", num_classes=3, width=8, stage_sizes=(1, 1, 1, 1))
    variables = random_variables(model, images)
    expected, found = (
        precise_batch_stats(of, variables, [images]) for of in (model, model.clone(**{rate: 0.5}))
    )
    assert tree_deviation(found, expected) == 0


def test_without_batches_there_is_an_error(model: ResNet, variables: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no image"):
        precise_batch_stats(model, variables, [])


def test_a_network_without_statistics_stays_as_it_is(images: np.ndarray) -> None:
    model = create_model("cifar_resnet20", width=32, norm=GroupNorm)
    variables = random_variables(model, images)
    assert precise_batch_stats(model, variables, [images]) is variables
