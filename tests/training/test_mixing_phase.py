"""Mixing that ends during a run: one program, and the boundary at the right step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.config import TrainConfig
from resnet_jax.training.setup import Run


def test_mixing_ends_with_the_step_that_completes_the_epoch(small_config: TrainConfig) -> None:
    run = Run.create(small_config)

    def augment(*batch: Any, mixing: jax.Array) -> tuple[jax.Array, Any]:
        return mixing, batch

    dataset = dataclasses.replace(run.dataset, augment=augment, mix_until_epoch=0.5)
    run = dataclasses.replace(run, dataset=dataset)
    on = jax.jit(lambda step: run._augment(step, None, None)(None, None, None)[0])
    # Half of 1,437 images are 11.2 batches of 64.
    mixing = [bool(on(jnp.int32(step))) for step in range(15)]
    np.testing.assert_array_equal(mixing, [step < 11 for step in range(15)])
