"""Upper bounds for the speed of an accelerator: arithmetic and memory traffic of a training step.

Both are counted from the network.  A training step has three multiplications per weight and pixel:
one in the forward pass, one for the gradient of the input, and one for the gradient of the kernel.
Images need no gradient.

For large batches, the memory traffic is the traffic of activations.  One pass reads or writes all
elements of the output x of a convolution, which is the input of the BatchNorm after it.  Per
convolution there are 14 passes:

- Forward, 5: the convolution writes x, the statistics read x, normalization and ReLU read x and
  write y, and the next convolution reads y.
- Backward, 9: the sums of BatchNorm's gradient read x and dy.  The gradient itself reads x and dy
  and writes dx.  The gradients of the convolution read dx twice and the input once, and write the
  gradient of the input.

Per block there are 4 passes over its output: forward, the shortcut is read; backward, the gradient
of the shortcut is read, the output is read for its ReLU, and their sum is written.

If all of this were fused into the convolutions, 9 and 2 passes would remain: normalization and its
gradient would be computed where they are read, statistics and sums where x and dy are written.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax import ResNet, count_macs
from resnet_jax.models.blocks import ResidualBlock

# Dense bfloat16 FLOP/s and bytes/s, from the vendors' data sheets.
PEAKS = {
    "A100": (312e12, 2.04e12),
    "H100": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
    "TPU v4": (275e12, 1.2e12),
    "TPU v5 lite": (197e12, 0.82e12),
}

# Number of passes over the outputs of convolutions and over the outputs of blocks.
UNFUSED, FUSED = (14, 4), (9, 2)


def peaks(device_kind: str) -> tuple[float, float] | None:
    """Return FLOP/s and bytes/s of a device, or None if they are not in `PEAKS`."""
    return next((peak for name, peak in PEAKS.items() if name in device_kind), None)


def training_flops(model: ResNet, image_size: int) -> float:
    """Return the operations per image; a multiplication and an addition count as two."""
    channels, stride = model.feature_info["stem"]
    stem = channels * (image_size // stride) ** 2 * model.stem_kernel_size**2 * 3
    return 2 * (3 * count_macs(model, (image_size, image_size, 3)) - stem)


def training_bytes(model: ResNet, image_size: int, itemsize: int, passes: tuple[int, int]) -> float:
    """Return the bytes that a training step reads and writes per image.

    Args:
        model: The network.
        image_size: Height and width in pixels.
        itemsize: Bytes per element of an activation.
        passes: `UNFUSED` or `FUSED`.
    """
    outputs = (_outputs(model, image_size, kind) for kind in (nn.Conv, ResidualBlock))
    return itemsize * sum(n * size for n, size in zip(passes, outputs, strict=True))


def _outputs(model: ResNet, image_size: int, kind: type[nn.Module]) -> int:
    """Return the total number of output elements of all modules of a kind."""

    def outputs(key: jax.Array, images: jax.Array) -> Any:
        variables = model.init(key, images, train=False)
        _, captured = model.apply(
            variables,
            images,
            train=False,
            capture_intermediates=lambda module, method: (
                isinstance(module, kind) and method == "__call__"
            ),
            mutable=["intermediates"],
        )
        return captured["intermediates"]

    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    shapes = jax.eval_shape(outputs, jax.random.key(0), images)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
