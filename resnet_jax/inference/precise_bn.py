"""Recomputation of BatchNorm's running statistics from given images."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.models import ResNet

Path = tuple[str, ...]
Images = jax.Array | np.ndarray


def precise_batch_stats(
    model: ResNet, variables: dict[str, Any], batches: Iterable[Images | tuple[Images, Images]]
) -> dict[str, Any]:
    """Return the variables with running statistics computed from given images ("Precise BN").

    Averaged parameters and imported weights need this when their running statistics belong to other
    parameters or to a different kind of image. As in training, each layer's input is normalized
    with the statistics of its batch. The statistics of the batches are then pooled, so that each
    example has the same weight, whatever the order and the number of the batches
    (Wu and Johnson 2021, https://arxiv.org/abs/2105.07576, section 3).

    Args:
        model: The network.
        variables: Its ``params`` and ``batch_stats``. The parameters are not changed.
        batches: Images float[B, H, W, C], prepared as for evaluation; or pairs of images and a mask
            bool[B] that is True for the images that count.

    Returns:
        The variables with new ``batch_stats``: pooled means and biased variances, float32.

    Raises:
        ValueError: There are no images.
    """
    if not variables.get("batch_stats"):
        return variables
    # With a decay of 0, the updated running statistics equal the statistics of the batch.
    batch_model = model.clone(
        bn_decay=0.0,
        bn_group_size=None,
        freeze_bn=False,
        drop_path_rate=0.0,
        dropout_rate=0.0,
        block_dropout_rate=0.0,
    )

    @jax.jit
    def batch_statistics(variables: dict[str, Any], images: Images, mask: Images) -> Any:
        _, updated = batch_model.apply(
            variables, images, train=True, mask=mask, mutable=["batch_stats"]
        )
        return updated["batch_stats"]

    count, sums = 0, defaultdict[Path, np.ndarray](lambda: np.zeros(()))
    for batch in batches:
        images, mask = batch if isinstance(batch, tuple) else (batch, np.ones(len(batch), bool))
        examples = int(mask.sum())
        stats: dict[Path, Any] = flatten_dict(
            jax.device_get(batch_statistics(variables, images, mask))
        )
        for path, leaf in stats.items():
            leaf = leaf.astype(np.float64)
            if path[-1] == "var":
                leaf += np.square(stats[(*path[:-1], "mean")], dtype=np.float64)
            sums[path] = sums[path] + examples * leaf
        count += examples
    if not count:
        raise ValueError("there is no image to compute the statistics from")
    moments = {path: total / count for path, total in sums.items()}
    for path in moments:
        if path[-1] == "var":
            moments[path] -= moments[(*path[:-1], "mean")] ** 2
    pooled = {path: moment.astype(np.float32) for path, moment in moments.items()}
    return variables | {"batch_stats": unflatten_dict(pooled)}
