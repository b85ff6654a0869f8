"""What an accelerator cannot exceed: the arithmetic and the memory traffic of ResNet-50.

Both are counted from the network. A training step multiplies three times per weight and pixel:
forward, for the gradient of the input, and for that of the kernel; images need no gradient.

Its traffic is that of activations, batch sizes being large. Per convolution, whose output has as
many elements as the input of the BatchNorm after it, one pass reads or writes them all:

- forward, 5: the convolution writes x; the statistics read x; normalisation and ReLU read x and
  write y; the next convolution reads y,
- backward, 9: the sums of BatchNorm's gradient read x and dy; that gradient reads x and dy and
  writes dx; the gradients of the convolution read dx twice and its input, and write that of the
  input.

Per block, over its output: the shortcut is read forward; backward the gradient of the shortcut is
read, the output is read for its ReLU, and their sum is written. That makes 14 passes and 4. If
whatever precedes or follows a convolution were part of it, 9 and 2 would be left: normalisation
and its gradient are computed where they are read, statistics and sums where x and dy are written.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax import ResNet, count_macs
from resnet_jax.models.blocks import ResidualBlock

# Dense bfloat16 FLOP/s and bytes/s, from the data sheets.
PEAKS = {
    "A100": (312e12, 2.04e12),
    "H100": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
    "TPU v4": (275e12, 1.2e12),
    "TPU v5 lite": (197e12, 0.82e12),
}

# Passes over the outputs of convolutions, and over those of blocks.
UNFUSED, FUSED = (14, 4), (9, 2)


def peaks(device_kind: str) -> tuple[float, float] | None:
    """FLOP/s and bytes/s of a device; None where they are not known here."""
    return next((peak for name, peak in PEAKS.items() if name in device_kind), None)


def training_flops(model: ResNet, image_size: int) -> float:
    """Of one image, counting a multiplication and an addition as two."""
    channels, stride = model.feature_info["stem"]
    stem = channels * (image_size // stride) ** 2 * model.stem_kernel_size**2 * 3
    return 2 * (3 * count_macs(model, (image_size, image_size, 3)) - stem)


def training_bytes(model: ResNet, image_size: int, itemsize: int, passes: tuple[int, int]) -> float:
    """Of one image, read and written, with ``passes`` over the outputs of convolutions and blocks.

    Args:
        model: the network.
        image_size: height and width in pixels.
        itemsize: bytes of an element of an activation.
        passes: `UNFUSED` or `FUSED`.
    """
    outputs = (_outputs(model, image_size, kind) for kind in (nn.Conv, ResidualBlock))
    return itemsize * sum(n * size for n, size in zip(passes, outputs, strict=True))


def _outputs(model: ResNet, image_size: int, kind: type[nn.Module]) -> int:
    """Elements of the outputs of all modules of a kind."""

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
