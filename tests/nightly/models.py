"""Loops over blocks and rematerialization, for networks that the suite does not test.

Run it with ``pytest -q -n 0 tests/nightly/models.py``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.models.test_scan import assert_a_loop_computes_what_its_blocks_compute
from tests.ops.test_remat import assert_remat_gives_the_same_gradients


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
