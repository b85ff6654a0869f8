"""The parts of a network: feature maps, pooled embeddings, head."""

import re
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from resnet_jax import count_parameters, create_model
from resnet_jax.models import Overrides
from tests.variables import random_variables


@pytest.mark.parametrize("name", ["resnet18", "resnetv2_18"])
def test_features_and_head_are_the_network(name: str) -> None:
    model = create_model(name, width=8, stage_sizes=(1, 1), num_classes=3, global_pool="avgmax")
    images = np.random.default_rng(0).normal(size=(2, 24, 24, 3)).astype(np.float32)
    variables = random_variables(model, images)

    @jax.jit
    def parts(variables: Any, images: Any) -> Any:
        maps = model.apply(variables, images, train=False, method="features")
        head = partial(model.apply, variables, method="forward_head")
        return {
            "logits": [
                model.apply(variables, images, train=False),
                head(maps),
                head(maps["stage2"]),
                model.apply(variables, maps["stage2"], 2, method="forward_from"),
                model.apply(variables, maps["stage1"], 1, method="forward_from"),
            ],
            "embedding": [
                model.apply(variables, images, method="embed"),
                head(maps, pre_logits=True),
                head(maps["stage2"], pre_logits=True),
                model.clone(num_classes=0).apply(variables, images, train=False),
            ],
        }

    results = parts(variables, images)
    for first, *others in results.values():
        for other in others:
            np.testing.assert_allclose(other, first, atol=1e-6)
    head = variables["params"]["head"]
    logits = results["embedding"][0] @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, results["logits"][0], atol=1e-5)


def test_dropout_comes_before_the_embedding_as_in_timm() -> None:
    model = create_model("resnet18", width=8, stage_sizes=(1,), dropout_rate=0.5)
    features = np.ones((4, 2, 2, 8), np.float32)
    variables = random_variables(model, np.zeros((1, 16, 16, 3), np.float32))
    embedding = model.apply(
        variables,
        features,
        pre_logits=True,
        train=True,
        method="forward_head",
        rngs={"dropout": jax.random.key(0)},
    )
    assert set(np.unique(embedding)) == {0.0, 2.0}


def test_the_table_of_a_network_names_its_layers() -> None:
    model = create_model("resnet18", width=8, stage_sizes=(1,), num_classes=3)
    images = np.zeros((1, 16, 16, 3), np.float32)
    console: dict[str, Any] = {"width": 160, "force_terminal": False}
    table = model.tabulate(jax.random.key(0), images, train=False, console_kwargs=console)
    for layer in ("stem/conv", "stage1/block1/conv1", "head"):
        assert f" {layer} " in table
    assert "float32[1,16,16,3]" in table
    assert f" {count_parameters(model, images.shape[1:]):,} " in table


def test_the_help_of_create_model_describes_every_override() -> None:
    text = create_model.__doc__ or ""
    arguments = text[text.index("Args:") : text.index("Returns:")]
    described = re.findall(r"^        (\w+): \S", arguments, re.MULTILINE)
    assert described[:3] == ["variant", "name", "small_input"]
    assert sorted(described[3:]) == sorted(Overrides.__annotations__)
