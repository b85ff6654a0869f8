"""Folding BatchNorm into the convolutions before it does not change the logits."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from resnet_jax import create_model
from resnet_jax.inference.fold import fold_batch_norm
from tests.comparison import deviation
from tests.variables import random_variables


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("resnet18", {"width": 8}),
        ("resnet50d", {"width": 8}),
        ("resnext50_32x4d", {"width": 16}),
        ("seresnet18", {"width": 16}),
        ("skresnet18", {"width": 16}),
        ("resnest14d", {"width": 16}),
        ("resnet50_clip", {"width": 16, "stem_widths": (8, 8, 16), "stage_sizes": (1, 1, 1, 1)}),
        ("cifar_resnet20", {"in_channels": 1}),
        ("res2net50_26w_4s", {"width": 32, "stage_sizes": (2, 1)}),
        ("resnet18_ibn_a", {"width": 8}),
        ("resnet18_ibn_b", {"width": 8}),
    ],
)
def test_logits_stay(name: str, overrides: dict[str, Any]) -> None:
    model = create_model(name, num_classes=10, **overrides)
    images = jax.random.normal(jax.random.key(2), (2, 32, 32, model.in_channels or 3))
    variables = random_variables(model, images)
    folded, folded_variables = fold_batch_norm(model, variables)

    assert folded_variables.keys() == {"params"}
    expected = jax.eval_shape(partial(folded.init, train=False), jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, folded_variables) == jax.tree.map(jnp.shape, expected)
    logits = jax.jit(partial(model.apply, train=False))(variables, images)
    folded_logits = jax.jit(partial(folded.apply, train=False))(folded_variables, images)
    assert deviation(folded_logits, logits) < 1e-5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50_gn", "GroupNorm"),
        ("resnetv2_50d_evos", "EvoNorm"),
        ("nf_resnet26", "has no normalization, so there is no BatchNorm to fold"),
        ("resnetv2_18", "stage1/block1/norm1 does not follow"),
    ],
)
def test_what_cannot_be_folded_is_refused(name: str, message: str) -> None:
    model = create_model(name, num_classes=10)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda images: model.init(jax.random.key(0), images, train=False), images
    )
    with pytest.raises(ValueError, match=message):
        fold_batch_norm(model, variables)


def test_the_given_variables_stay_as_they_are() -> None:
    model = create_model("cifar_resnet20")
    variables = random_variables(model, jnp.zeros((1, 32, 32, 3)))
    before = jax.tree.leaves(variables)
    fold_batch_norm(model, variables)
    assert all(x is y for x, y in zip(jax.tree.leaves(variables), before, strict=True))
