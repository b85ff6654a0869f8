"""Loops over blocks, rematerialization, variables and costs, for all that the suite leaves out.

Run it with ``pytest -q -n 0 tests/nightly/models.py``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from resnet_jax import create_model, list_models
from resnet_jax.weights.structure import structure
from tests.models.test_complexity import GIGA, assert_as_many_macs_as_published
from tests.models.test_scan import assert_a_loop_computes_what_its_blocks_compute
from tests.ops.test_remat import assert_remat_gives_the_same_gradients
from tests.variables import abstract_variables


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("wrn_16_8", {"dtype": jnp.bfloat16}),
        ("resnetblur18", {"output_stride": 8, "stage_sizes": (1, 1, 5)}),
        ("resnetv2_50x1_bit", {"small_input": True, "width": 32}),
        ("seresnet18", {"small_input": True}),
        ("ecaresnet26t", {"small_input": True}),
        ("skresnet18", {"small_input": True, "width": 16}),
        ("res2net50_26w_4s", {"small_input": True, "width": 16}),
        ("resnet18", {"small_input": True, "ibn": "a"}),
        ("nf_seresnet26", {"small_input": True, "skip_init": True}),
        ("resnet50_clip_gap", {"small_input": True, "num_classes": 5}),
        ("resnest14d", {"small_input": True, "width": 16, "act": jax.nn.silu}),
    ],
)
def test_a_loop_computes_what_its_blocks_compute(name: str, fields: dict[str, Any]) -> None:
    assert_a_loop_computes_what_its_blocks_compute(name, fields)


def test_remat_gives_the_same_gradients_in_a_preactivation_network() -> None:
    assert_remat_gives_the_same_gradients("resnetv2_18")


@pytest.mark.parametrize("name", list_models())
def test_structure_is_what_init_makes(name: str) -> None:
    model = create_model(name)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    assert structure(model, 3) == abstract_variables(model, images)


@pytest.mark.parametrize("name", GIGA)
def test_imagenet_networks_compute_what_is_published(name: str) -> None:
    assert_as_many_macs_as_published(name, *GIGA[name])
