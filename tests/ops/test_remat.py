"""Rematerialization lowers the peak memory and changes no result."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax import create_model
from tests.comparison import tree_deviation
from tests.variables import random_variables


def program(
    remat: bool, name: str, images: jax.Array, **overrides: Any
) -> tuple[Callable[[Any], Any], Any]:
    """Return the gradients, the updated statistics and the parameters of a network."""
    model = create_model(name, num_classes=10, width=8, remat=remat, **overrides)
    variables = random_variables(model, images)

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        logits, updated = model.apply(
            variables | {"params": params},
            images,
            train=True,
            mask=jnp.arange(len(images)) > 0,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(2)},
        )
        return jnp.mean(logits**2), updated

    return jax.jit(jax.grad(loss_fn, has_aux=True)), variables["params"]


def gradient(*args: Any, **overrides: Any) -> tuple[Any, Any]:
    step, params = program(*args, **overrides)
    return step(params)


def assert_remat_gives_the_same_gradients(name: str) -> None:
    images = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))
    # The recomputation must use the same mask and the same random choice of examples.
    grads, updated = gradient(False, name, images, drop_path_rate=0.5)
    remat_grads, remat_updated = gradient(True, name, images, drop_path_rate=0.5)
    assert tree_deviation(remat_grads, grads) < 1e-4
    assert tree_deviation(remat_updated, updated) < 1e-5


def test_remat_gives_the_same_gradients_under_the_same_names() -> None:
    # `tests/nightly/models.py` tests another network.
    assert_remat_gives_the_same_gradients("cifar_resnet20")


def test_remat_lowers_the_peak_of_memory() -> None:
    images = jnp.zeros((16, 32, 32, 3))

    def bytes_needed(remat: bool) -> int:
        step, params = program(remat, "cifar_resnet20", images)
        return step.lower(params).compile().memory_analysis().temp_size_in_bytes

    assert bytes_needed(True) < 0.7 * bytes_needed(False)
