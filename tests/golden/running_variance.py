"""The running variance, the only difference by design between PyTorch's BatchNorm and ours.

PyTorch normalizes by the biased variance of the batch and stores the unbiased one, which is larger
by n / (n - 1) for n values per channel.  Flax stores the biased one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import ResNet
from resnet_jax.models.normalization import BatchNorm


def unbiased(
    model: ResNet,
    variables: dict[str, Any],
    initial: dict[str, Any],
    image_shape: tuple[int, ...],
    steps: int,
) -> dict[str, Any]:
    """Return variables with the running variances that PyTorch has after the same training.

    Args:
        model: the network.
        variables: its variables after training with images of one shape.
        initial: its variables before the training.
        image_shape: (B, H, W, C) of every batch.
        steps: number of batches.
    """
    _, captured = jax.eval_shape(
        lambda variables, images: model.apply(
            variables,
            images,
            train=False,
            capture_intermediates=lambda module, _: isinstance(module, BatchNorm),
            mutable=["intermediates"],
        ),
        variables,
        jax.ShapeDtypeStruct(image_shape, jnp.float32),
    )
    kept = model.unbound_norm.momentum**steps

    def correct(path: tuple[Any, ...], now: np.ndarray, before: np.ndarray) -> np.ndarray:
        *modules, leaf = [key.key for key in path]
        if leaf != "var":
            return now
        module = captured["intermediates"]
        for name in modules:
            module = module[name]
        n = np.prod(module["__call__"][0].shape[:-1])
        return kept * before + (now - kept * before) * n / (n - 1)

    return variables | {
        "batch_stats": jax.tree_util.tree_map_with_path(
            correct, variables["batch_stats"], initial["batch_stats"]
        )
    }
