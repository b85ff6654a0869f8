"""The optimizer, compared with its definition."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import create_model
from resnet_jax.config import (
    CosineConfig,
    DecayOn,
    FinetuneConfig,
    SGDConfig,
    StepsConfig,
    load_experiment,
)
from resnet_jax.training.objective import cross_entropy
from resnet_jax.training.optim import create_optimizer
from tests.variables import abstract_variables


def test_warm_up_is_linear_and_the_rest_half_a_cosine() -> None:
    schedule = CosineConfig(warmup_epochs=10.0).create(0.4, epochs=50, steps=round)
    rates = np.array([float(schedule(step)) for step in range(51)])
    np.testing.assert_allclose(rates[:11], np.linspace(0, 0.4, 11), rtol=1e-6)
    expected = 0.2 * (1 + np.cos(np.pi * np.arange(41) / 40))
    np.testing.assert_allclose(rates[10:], expected, atol=1e-7)


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    schedule = CosineConfig(warmup_epochs=0.0).create(0.4, epochs=50, steps=round)
    assert float(schedule(0)) == pytest.approx(0.4)


@pytest.mark.parametrize("warmup", [0, 10])
def test_steps_multiply_the_rate_where_they_are_asked_for(warmup: int) -> None:
    config = StepsConfig(warmup_epochs=warmup, decay_epochs=(20.0, 30.0), decay_factor=0.5)
    schedule = config.create(0.4, epochs=50, steps=round)
    rates = np.array([float(schedule(step)) for step in range(50)])
    steps = np.arange(50)
    expected = 0.4 * 0.5 ** ((steps >= 20).astype(int) + (steps >= 30))
    expected[:warmup] = np.linspace(0, 0.4, warmup + 1)[:-1]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_learning_rate_of_cifar_falls_at_32_and_48_thousand_steps() -> None:
    config = load_experiment("cifar10-resnet20").config
    assert isinstance(config.schedule, StepsConfig)
    steps = [config.steps(epochs, 50_000) for epochs in config.schedule.decay_epochs]
    assert steps == [32_000, 48_000]
    assert config.steps(config.epochs, 50_000) == 64_000


@pytest.mark.parametrize("decay_on", ["kernels", "all"])
def test_weight_decay_spares_norm_scales_and_biases(decay_on: DecayOn) -> None:
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 1, 1))},
        "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
        "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    }
    optimizer = create_optimizer(
        SGDConfig(
            weight_decay=0.5,
            momentum=0.0,
            nesterov=False,
            decay_on=decay_on,
        ),
        0.1,
    )
    zero = optax.tree.zeros_like(params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    spared = 0.0 if decay_on == "kernels" else -0.05
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
    shapes = abstract_variables(model, jnp.zeros((1, 32, 32, 3)))
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes["params"])


def rates(finetune: FinetuneConfig, params: Any) -> dict[str, float]:
    """Return the learning rate of each parameter by its path."""
    optimizer = create_optimizer(PLAIN, 1.0, finetune)
    updates, _ = optimizer.update(optax.tree.ones_like(params), optimizer.init(params), params)
    return {"/".join(path): -float(leaf.min()) for path, leaf in flatten_dict(updates).items()}


def test_frozen_parameters_stay_and_the_others_move() -> None:
    params = before = parameters("cifar_resnet20")
    size = {"frozen": 0, "free": 0}
    finetune = FinetuneConfig(freeze=("stem", "stage[12]/.*norm"))
    optimizer = create_optimizer(SGDConfig(weight_decay=0.1), 0.1, finetune)
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
        size["frozen" if stays else "free"] += leaf.size
    assert size["frozen"] > 0
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == size["free"], "no more momentum"


def test_a_pattern_that_matches_nothing_is_named_with_what_is_near() -> None:
    optimizer = create_optimizer(SGDConfig(), 0.1, FinetuneConfig(freeze=("stage1", "stem/cnv")))
    with pytest.raises(
        ValueError, match=r"freeze: 'stem/cnv' matches no parameter; there are stem"
    ):
        optimizer.init(parameters("cifar_resnet20"))


PLAIN = SGDConfig(momentum=0.0, nesterov=False, weight_decay=0.0)
HALVED = FinetuneConfig(layer_decay=0.5)


@pytest.mark.parametrize(
    ("name", "stage_sizes"),
    [("resnet18", (2, 2, 2, 2)), ("cifar_resnet20", (3, 3, 3)), ("resnetv2_18", (2, 2, 2, 2))],
)
def test_layer_decay_falls_from_the_head_to_the_stem(
    name: str, stage_sizes: tuple[int, ...]
) -> None:
    blocks = [
        f"stage{i}/block{j}" for i, size in enumerate(stage_sizes, 1) for j in range(1, size + 1)
    ]
    expected = {group: 0.5**above for above, group in enumerate(["head", *blocks[::-1], "stem"])}
    # timm puts the last norm of resnetv2 into the group before it, too.
    expected["final_norm"] = 0.5
    for path, rate in rates(HALVED, parameters(name)).items():
        (group,) = (group for group in expected if path.startswith(f"{group}/"))
        assert rate == expected[group], path


def test_frozen_blocks_count_as_layers() -> None:
    params = parameters("cifar_resnet20")
    freeze = ("stem", "stage1", "stage3/block2")
    free, part = rates(HALVED, params), rates(dataclasses.replace(HALVED, freeze=freeze), params)
    assert part == {
        path: 0.0 if path.startswith(freeze) else free_rate for path, free_rate in free.items()
    }
