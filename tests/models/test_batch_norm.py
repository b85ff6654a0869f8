"""Frozen BatchNorm."""

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax import GroupNorm, create_model
from resnet_jax.config import ModelConfig, SGDConfig, SyntheticConfig, TrainConfig
from resnet_jax.data import Batch
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.run import check
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step


def test_frozen_statistics_are_used_and_kept_in_training() -> None:
    model = create_model("cifar_resnet20", width=8, freeze_bn=True)
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = model.init(jax.random.key(1), images, train=False)
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 0.05, variables["batch_stats"])

    def loss_fn(params: dict) -> tuple[jax.Array, tuple[jax.Array, dict]]:
        logits, updated = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(logits**2), (logits, updated)

    grads, (logits, updated) = jax.grad(loss_fn, has_aux=True)(variables["params"])
    np.testing.assert_array_equal(logits, model.apply(variables, images, train=False))
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    assert jnp.any(grads["stage1"]["block1"]["norm1"]["scale"] != 0)
    assert jnp.any(grads["stage1"]["block1"]["norm1"]["bias"] != 0)


def test_freezing_is_harmless_without_batch_norm() -> None:
    images = jnp.ones((2, 16, 16, 3))
    model = create_model("cifar_resnet20", width=32, norm=GroupNorm, freeze_bn=True)
    variables = model.init(jax.random.key(1), images, train=False)
    assert model.apply(variables, images, train=True).shape == (2, 10)


def test_a_training_step_moves_parameters_and_keeps_frozen_statistics() -> None:
    config = TrainConfig(
        model=ModelConfig("cifar_resnet20", freeze_bn=True), data=SyntheticConfig(num_classes=10)
    )
    model, _ = check(config)
    optimizer = make_optimizer(SGDConfig(), 0.1)
    before = create_train_state(jax.random.key(0), model, optimizer, (8, 8, 3))
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    batch = Batch(images, jnp.arange(4), jnp.ones(4, bool))
    train_step = jax.jit(make_train_step(model, optimizer, lambda _, images: images))
    after, _ = train_step(before, batch, jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)
    assert jnp.any(after.params["head"]["kernel"] != before.params["head"]["kernel"])
