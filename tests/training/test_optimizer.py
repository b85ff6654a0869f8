"""The optimizer, against its definition."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import create_model
from resnet_jax.config import SGDConfig
from resnet_jax.training.losses import cross_entropy
from resnet_jax.training.optimizer import frozen, make_optimizer, make_schedule, scale_by_depth


def test_warm_up_is_linear_and_the_rest_half_a_cosine() -> None:
    schedule = make_schedule(SGDConfig(learning_rate=0.4), warmup_steps=10, total_steps=50)
    rates = np.array([float(schedule(step)) for step in range(51)])
    np.testing.assert_allclose(rates[:11], np.linspace(0, 0.4, 11), rtol=1e-6)
    expected = 0.2 * (1 + np.cos(np.pi * np.arange(41) / 40))
    np.testing.assert_allclose(rates[10:], expected, atol=1e-7)


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    schedule = make_schedule(SGDConfig(learning_rate=0.4), warmup_steps=0, total_steps=50)
    assert float(schedule(0)) == pytest.approx(0.4)


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
def test_weight_decay_spares_norm_scales_and_biases(decay_norm_and_bias: bool) -> None:
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 1, 1))},
        "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
        "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    }
    optimizer = make_optimizer(
        SGDConfig(
            weight_decay=0.5,
            momentum=0.0,
            nesterov=False,
            decay_norm_and_bias=decay_norm_and_bias,
        ),
        0.1,
    )
    zero = optax.tree.zeros_like(params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    spared = 0.0 if not decay_norm_and_bias else -0.05
    assert float(updates["conv"]["kernel"].mean()) == pytest.approx(-0.05)
    assert float(updates["head"]["kernel"].mean()) == pytest.approx(-0.05)
    for update in (updates["norm"]["scale"], updates["norm"]["bias"], updates["head"]["bias"]):
        assert float(update.mean()) == pytest.approx(spared)


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    logits = jnp.asarray([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
    labels = jnp.asarray([0, 1])
    log_probabilities = np.asarray(logits) - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    np.testing.assert_allclose(
        cross_entropy(logits, labels, label_smoothing=0.3),
        -(targets * log_probabilities).sum(1),
        rtol=1e-6,
    )


def parameters(name: str) -> Any:
    model = create_model(name, width=8)
    images = jnp.zeros((1, 16, 16, 3))
    return model.init(jax.random.key(0), images, train=False)["params"]


def test_frozen_parameters_stay_and_the_others_move() -> None:
    params = before = parameters("cifar_resnet20")
    config = SGDConfig(weight_decay=0.1, freeze=("stem", "stage[12]/.*norm"))
    optimizer = make_optimizer(config, 0.1)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    for path, leaf in flatten_dict(params).items():
        name = "/".join(path)
        stays = name.startswith("stem") or (
            name.startswith(("stage1", "stage2")) and "norm" in name
        )
        assert bool((leaf == flatten_dict(before)[path]).all()) == stays, name


def test_a_pattern_that_matches_nothing_is_named_with_what_is_near() -> None:
    with pytest.raises(
        ValueError, match=r"freeze: 'stem/cnv' matches no parameter; there are stem"
    ):
        frozen(parameters("cifar_resnet20"), ["stem/cnv"])


def test_layer_decay_falls_from_the_head_to_the_stem() -> None:
    params = parameters("cifar_resnet20")
    scaled = scale_by_depth(0.5)
    updates, _ = scaled.update(jax.tree.map(jnp.ones_like, params), scaled.init(params))
    rate = {"/".join(path): float(leaf.max()) for path, leaf in flatten_dict(updates).items()}
    # Nine blocks between stem and head.
    assert rate["head/kernel"] == 1
    assert rate["stage3/block3/conv2/kernel"] == 0.5
    assert rate["stage2/block1/norm1/scale"] == 0.5**6
    assert rate["stage1/block1/conv1/kernel"] == 0.5**9
    assert rate["stem/conv/kernel"] == 0.5**10
