"""BatchNorm's running statistics, computed afresh instead of averaged along the way."""

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
    """Replaces the running statistics by those of given images ("Precise BN").

    For averaged parameters and for imported ones, whose running statistics belong to other
    parameters or other images.  Every layer sees what it sees in training, normalised by the
    statistics of its batch; the statistics of the batches are pooled, so that an example counts the
    same in a large batch and in a small one, and neither order nor number of batches matters
    (Wu and Johnson 2021, https://arxiv.org/abs/2105.07576, section 3).

    Args:
        model: the network.
        variables: ``params`` and ``batch_stats``; parameters stay as they are.
        batches: float[B, H, W, C], prepared as for evaluation; or pairs of them and of masks
            bool[B] that say which images count.

    Returns:
        The variables with new ``batch_stats``: pooled means and biased variances, float32.

    Raises:
        ValueError: there is no batch.
    """
    if not variables.get("batch_stats"):
        return variables
    # Of nothing kept, the updated running statistics are those of the batch.
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
