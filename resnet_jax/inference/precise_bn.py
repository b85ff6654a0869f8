"""Recomputation of BatchNorm's running statistics from given images."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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
    batch_statistics = jax.jit(make_batch_statistics(model))

    def each() -> Iterator[tuple[Any, int]]:
        for batch in batches:
            images, mask = batch if isinstance(batch, tuple) else (batch, np.ones(len(batch), bool))
            yield batch_statistics(variables, images, mask), int(mask.sum())

    return variables | {"batch_stats": pooled_statistics(each())}


def make_batch_statistics(model: ResNet) -> Callable[[dict[str, Any], Images, Images], Any]:
    """Return a pure function from (variables, images, mask) to the statistics of the batch.

    It can be jitted.  Its result has the structure of ``batch_stats``, and `pooled_statistics`
    combines several of them.

    Args:
        model: The network. Dropout, stochastic depth, DropBlock, groups of examples and frozen
            statistics are turned off.
    """
    # With a decay of 0, the updated running statistics equal the statistics of the batch.
    batch_model = model.clone(
        bn_decay=0.0,
        bn_group_size=None,
        freeze_bn=False,
        drop_path_rate=0.0,
        dropout_rate=0.0,
        block_dropout_rate=0.0,
        drop_block_rate=0.0,
    )

    def batch_statistics(variables: dict[str, Any], images: Images, mask: Images) -> Any:
        _, updated = batch_model.apply(
            variables, images, train=True, mask=mask, mutable=["batch_stats"]
        )
        return updated["batch_stats"]

    return batch_statistics


def pooled_statistics(batches: Iterable[tuple[Any, int]]) -> dict[str, Any]:
    """Return the statistics of all examples of some batches, float32.

    Args:
        batches: What the function of `make_batch_statistics` returned, and the number of examples
            under the mask.

    Raises:
        ValueError: There are no examples.
    """
    count, sums = 0, defaultdict[Path, np.ndarray](lambda: np.zeros(()))
    for statistics, examples in batches:
        stats: dict[Path, Any] = flatten_dict(jax.device_get(statistics))
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
    return unflatten_dict(pooled)
