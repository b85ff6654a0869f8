"""Networks equal those of torchvision and timm, with weights that need no download."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import ResNet, create_model, load_weights
from resnet_jax.training.objective import cross_entropy
from resnet_jax.weights.dialects.torch import Rules, torch_name, torch_rules
from tests.comparison import deviation
from tests.golden import golden
from tests.golden.running_variance import unbiased

# ResNeSt and SK have no reference values for training, which is ill-conditioned for a batch of two
# images.
TRAINED = [arch for arch in sorted(golden.specs()) if "train_loss" in golden.values(arch)]

# One network for each kind of block, stem, normalization and attention that changes a gradient.
# `tests/nightly/golden_training.py` tests the other networks.
REPRESENTATIVES = [
    arch
    for arch in TRAINED
    if arch
    in (
        "resnet18",
        "resnet50_gn",
        "resnetv2_50x1_bit",
        "ecaresnet50d",
        "resnetrs50",
        "resnetblur50",
        "res2next50",
        "resnetv2_50d_evos",
        "resnetv2_50d_frn",
        "resnet18_ibn_b",
        "se_resnet50_ibn_a",
        "nf_seresnet26",
    )
]


@pytest.fixture(scope="module", params=sorted(golden.specs()))
def arch(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(arch: str) -> tuple[ResNet, dict[str, Any]]:
    spec = golden.specs()[arch]
    layers = {"stage_sizes": tuple(spec["layers"])} if "layers" in spec else {}
    model = create_model(arch, num_classes=spec["num_classes"], **layers)
    return model, load_weights(model, golden.state_dict(arch))


@pytest.fixture(scope="module")
def images(arch: str) -> np.ndarray:
    return golden.images(2, golden.specs()[arch]["image_size"])


def by_torch_name(tree: dict[str, Any], rules: Rules) -> dict[str, np.ndarray]:
    return {
        torch_name([key.key for key in path], rules): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_evaluation_equals_the_reference(
    arch: str, network: tuple[ResNet, dict[str, Any]], images: np.ndarray
) -> None:
    model, variables = network
    expected = golden.values(arch)

    @jax.jit
    def forward(variables: dict[str, Any], images: jax.Array) -> tuple[jax.Array, dict]:
        # The network calls `features`, so that one call has both results.
        return model.apply(
            variables,
            images,
            train=False,
            capture_intermediates=lambda _, method: method == "features",
            mutable=["intermediates"],
        )

    logits, captured = forward(variables, images)
    (features,) = captured["intermediates"]["features"]
    assert deviation(logits, expected["logits"]) < 2e-5
    for stage in ("stage1", "stage2", "stage3", "stage4"):
        assert deviation(features[stage].mean((1, 2)), expected[stage]) < 2e-5


@pytest.mark.parametrize("arch", REPRESENTATIVES, indirect=True)
def test_training_equals_the_reference(
    arch: str, network: tuple[ResNet, dict[str, Any]], images: np.ndarray
) -> None:
    model, variables = network
    expected = golden.values(arch)
    labels = golden.labels(2, golden.specs()[arch]["num_classes"])

    @jax.jit
    def forward_and_backward(variables: dict[str, Any]) -> Any:
        def loss_fn(params: dict[str, Any]) -> Any:
            logits, updated = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return cross_entropy(logits, jnp.asarray(labels)).mean(), (logits, updated)

        return jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])

    (loss, (logits, updated)), grads = forward_and_backward(variables)
    assert deviation(loss, expected["train_loss"]) < 5e-3
    assert deviation(logits, expected["train_logits"]) < 5e-3

    rules = torch_rules(model)
    grads = by_torch_name({"params": grads}, rules)
    norms = [np.linalg.norm(grads[name]) for name in golden.parameter_names(arch)]
    assert deviation(norms, expected["grad_norms"]) < 1e-2

    if "running_mean" not in expected:
        return  # GroupNorm has none.
    updated = unbiased(model, variables | updated, variables, images.shape, steps=1)
    statistics = by_torch_name({"batch_stats": updated["batch_stats"]}, rules)
    for kind in ("running_mean", "running_var"):
        joined = np.concatenate([statistics[name] for name in golden.buffer_names(arch, kind)])
        assert deviation(joined, expected[kind]) < 1e-3
