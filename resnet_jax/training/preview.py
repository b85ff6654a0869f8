"""A look at the first training batches, exactly as the first steps get them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.config import TrainConfig
from resnet_jax.report.preview import BatchPreview, Preview, write_preview_page
from resnet_jax.training.description import describe, provenance
from resnet_jax.training.opening import open_run
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.setup import Run
from resnet_jax.training.sharding import batch_sharded, replicate, replicated
from resnet_jax.training.step import step_keys

STEPS = 2
"""Number of batches in a preview."""


def write_preview(
    config: TrainConfig,
    path: str | os.PathLike[str],
    *,
    images: int = 32,
    command: Sequence[str] = (),
) -> None:
    """Write a page that shows the first training batches of an experiment. Nothing is trained.

    Args:
        config: The experiment.
        path: The HTML file.
        images: Number of images of each batch that are shown, from the beginning of the batch.
        command: Words of the command line, for the page.

    Raises:
        ConfigError: The experiment cannot work; the message says what to change.
        DataError: The images cannot be read.
    """
    run = open_run(config, read_weights=False)
    write_preview_page(Path(path), create_preview(run, images=images, facts=provenance(command)))


def create_preview(run: Run, *, images: int, facts: Mapping[str, str] | None = None) -> Preview:
    """Return what the first steps of a run get, after augmentation and mixing.

    The batches come from the iterator of the run, and the random choices from the keys of its
    steps, so that the pixels are those that the first steps are given.

    Args:
        run: The run.
        images: Number of images of each batch to return.
        facts: More facts for the page, by name.
    """
    facts = {**describe(run), **(facts or {})}
    run = run.of_phase(run.phases.phases[0])
    train, config = run.dataset.train, run.config
    replica = replicated(run.mesh)

    def prepare(resident: Any, drawn: Any, key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
        batch = train.fetch(resident, drawn)
        augment_key, _ = step_keys(key, step)
        inputs, targets = run.augmentation(step)(augment_key, batch.image, batch.label)
        if targets.ndim == 1:
            targets = jax.nn.one_hot(targets, len(run.dataset.class_names))
        return {
            "inputs": inputs[:images],
            "targets": targets[:images],
            "labels": batch.label,
            "mask": batch.mask,
            "mean": jnp.mean(inputs, (0, 1, 2)),
            "std": jnp.std(inputs, (0, 1, 2)),
        }

    jitted = jax.jit(
        prepare,
        in_shardings=(replica, batch_sharded(run.mesh), replica, replica),
        out_shardings=replica,
    )
    resident, key = replicate(train.resident, run.mesh), run.step_key
    previews = []
    with Prefetch(run.first_batches(), run.mesh) as batches:
        for step in range(min(STEPS, run.total_steps)):
            found = jax.device_get(jitted(resident, next(batches), key, jnp.int32(step)))
            previews.append(
                BatchPreview(
                    step=step + 1,
                    images=_levels(run, found["inputs"]),
                    targets=found["targets"],
                    labels=found["labels"][found["mask"].astype(bool)],
                    mean=found["mean"],
                    std=found["std"],
                )
            )
    return Preview(
        title=f"{config.model.name} on {os.path.basename(run.dataset.name.rstrip('/'))}",
        facts=facts,
        class_names=run.dataset.class_names,
        batch_size=config.batch_size,
        batches=previews,
    )


def _levels(run: Run, inputs: np.ndarray) -> np.ndarray:
    """Return images with levels from 0 to 255, given inputs of the network.

    Values outside, such as those of random erasing, are clipped.

    Args:
        run: The run.
        inputs: float32[N, H, W, C].

    Returns:
        uint8[N, H, W, C].
    """
    preprocessing = run.dataset.preprocessing
    mean, std = (np.asarray(values) for values in (preprocessing.mean, preprocessing.std))
    return np.rint(255 * (inputs * std + mean)).clip(0, 255).astype(np.uint8)
