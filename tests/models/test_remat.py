"""Rematerialisation changes memory and nothing else."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from resnet_jax import create_model
from tests.comparison import tree_deviation


def gradient(remat: bool, name: str, images: jax.Array) -> tuple[Any, Any]:
    """Gradients and updated statistics."""
    model = create_model(name, num_classes=10, width=8, remat=remat)
    variables = model.init(jax.random.key(0), images, train=False)

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        logits, updated = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(logits**2), updated

    return jax.jit(jax.grad(loss_fn, has_aux=True))(variables["params"])


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnetv2_18"])
def test_remat_gives_the_same_gradients_under_the_same_names(name: str) -> None:
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    grads, updated = gradient(False, name, images)
    remat_grads, remat_updated = gradient(True, name, images)
    assert tree_deviation(remat_grads, grads) < 1e-4
    assert tree_deviation(remat_updated, updated) < 1e-5
