"""Optimizers and clipping, compared with the implementations that recipes were made with.

`regenerate_optimizers.py` made the reference values.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax import create_model
from resnet_jax.config import (
    AdamWConfig,
    ClipConfig,
    LambConfig,
    LarsConfig,
    LionConfig,
    MuonConfig,
    OptimizerConfig,
    RmspropConfig,
    SGDConfig,
)
from resnet_jax.models.stacking import unstacked_paths
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.optim.parameter_groups import DECAYED
from resnet_jax.weights.dialects.torch import torch_name, torch_rules
from tests.training.optimizer_cases import PEAKS, STEPS, gradients, parameters, rates
from tests.variables import abstract_variables

VALUES = np.load(Path(__file__).parent / "optimizer_values.npz")
GROUPS = json.loads((Path(__file__).parent / "decay_groups.json").read_text())

SGD = {"learning_rate": PEAKS["sgd"], "weight_decay": 0.05}
SGDW: dict[str, Any] = SGD | {"decay": "decoupled"}
SCHEDULE: dict[str, Any] = {
    "learning_rate": PEAKS["sgd_schedule"],
    "momentum": 0.875,
    "weight_decay": 5e-3,
    "decay": "schedule",
    "decay_on": "all",
}
LAMB: dict[str, Any] = {"learning_rate": PEAKS["lamb"], "weight_decay": 0.2}
LARS: dict[str, Any] = {"learning_rate": PEAKS["lars"], "weight_decay": 5e-2}
TIMM_LARS: dict[str, Any] = LARS | {"learning_rate_in": "update", "epsilon": 1e-8}
RMSPROP: dict[str, Any] = {"learning_rate": PEAKS["rmsprop"], "weight_decay": 0.05}
MUON: dict[str, Any] = {
    "learning_rate": PEAKS["muon"],
    "others_learning_rate": 0.3 * PEAKS["muon"],
}
NOT_DECAYED = SGDConfig(PEAKS["sgd"], weight_decay=0.0, nesterov=False)

CASES: dict[str, tuple[OptimizerConfig, ClipConfig]] = {
    name: (config, ClipConfig())
    for name, config in {
        "sgd": SGDConfig(**SGD, nesterov=False),
        "sgd_nesterov": SGDConfig(**SGD),
        "sgd_plain": SGDConfig(**SGD, momentum=0.0, nesterov=False),
        "sgd_decoupled": SGDConfig(**SGDW, nesterov=False),
        "sgd_decoupled_nesterov": SGDConfig(**SGDW),
        "sgd_schedule": SGDConfig(**SCHEDULE, nesterov=False),
        "sgd_schedule_nesterov": SGDConfig(**SCHEDULE),
        "sgd_bfloat16": SGDConfig(
            PEAKS["sgd_bfloat16"], nesterov=False, weight_decay=0, accumulator_dtype="bfloat16"
        ),
        "adamw": AdamWConfig(PEAKS["adamw"], beta2=0.98, weight_decay=0.2),
        "lamb": LambConfig(**LAMB),
        "lamb_trust_clip": LambConfig(**LAMB, trust_clip=True, max_gradient_norm=None),
        "lars_timm": LarsConfig(**TIMM_LARS),
        "lars_timm_nesterov": LarsConfig(**TIMM_LARS, nesterov=True),
        "lars_tensorflow": LarsConfig(**LARS),
        "lars_tensorflow_nesterov": LarsConfig(**LARS, nesterov=True),
        "rmsprop": RmspropConfig(**RMSPROP),
        "rmsprop_without_momentum": RmspropConfig(
            **RMSPROP, momentum=0.0, alpha=0.95, epsilon=1e-10
        ),
        "lion": LionConfig(PEAKS["lion"], weight_decay=0.2),
        "muon_adamw": MuonConfig(**MUON, weight_decay=0.1, others_weight_decay=0.1),
        "muon_sgd_renormalized": MuonConfig(
            **MUON,
            momentum=0.6,
            iterations=3,
            renormalize=True,
            others="sgd",
            others_momentum=0.85,
            others_weight_decay=0.02,
        ),
        "muon_match_adamw": MuonConfig(**MUON, momentum=0.9, nesterov=False, scale="match_adamw"),
    }.items()
} | {
    "clip_value": (NOT_DECAYED, ClipConfig(value=0.05)),
    "clip_adaptive": (NOT_DECAYED, ClipConfig(adaptive=0.1)),
}


def trained(config: OptimizerConfig, clip: ClipConfig) -> np.ndarray:
    """Return all parameters after all steps as one vector, float64."""
    with jax.enable_x64(True):
        table = jnp.asarray(rates(config.learning_rate))
        optimizer = create_optimizer(config, lambda step: table[step], clip=clip)
        update: Any = optimizer.update
        if getattr(config, "accumulator_dtype", None) != "bfloat16":
            # A compiled program may keep the momentum in a wider type than asked for.
            update = jax.jit(update)
        params: Any = unflatten_dict(parameters())
        state = optimizer.init(params)
        for step in range(STEPS):
            updates, state = update(unflatten_dict(gradients(step)), state, params)
            params = jax.tree.map(lambda leaf, new: leaf + np.asarray(new), params, updates)
        flat = flatten_dict(params)
        return np.concatenate([flat[path].ravel() for path in parameters()])


def test_every_reference_value_is_compared() -> None:
    assert set(CASES) == set(VALUES.files)


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_equal_the_reference(name: str) -> None:
    difference = np.abs(trained(*CASES[name]) - VALUES[name]).max()
    assert difference < 1e-9


@pytest.mark.parametrize("name", GROUPS)
def test_the_same_parameters_decay_as_in_the_reference(name: str) -> None:
    model = create_model(name, scan=True)
    params = abstract_variables(model, jnp.zeros((1, 32, 32, 3)))["params"]
    rules = torch_rules(model)
    for decay_on, spared in GROUPS[name].items():
        decays = DECAYED[decay_on]
        assert decays is not None
        ours = {
            torch_name(("params", *path.split("/")), rules)
            for names, decays_here in flatten_dict(decays(params)).items()
            for path in unstacked_paths(names, flatten_dict(params)[names].shape)
            if not decays_here
        }
        assert ours == set(spared), decay_on
