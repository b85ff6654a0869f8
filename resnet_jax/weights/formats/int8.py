"""Weights as int8, with one float32 scale for each output channel.

Only kernels are quantized: nearly all bytes of a network are theirs, and biases, scales and running
statistics stay exact. A kernel becomes ``round(kernel / scale)``, where the scale is the largest
absolute value of the output channel divided by 127, so that no value is clipped and zero stays
zero. No images are needed for calibration, and activations stay float32.
"""

from collections.abc import Mapping

import numpy as np

SCALE = "_scale"
"""Suffix of the name of a scale, after that of its tensor."""

_LEVELS = 127


def quantize(kernel: np.ndarray, channel_axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel as int8 and the scales, whose product is nearly the kernel.

    Each value differs from the original by at most half of its scale.

    Args:
        kernel: float32 array.
        channel_axis: Axis of the output channels.

    Returns:
        int8 array of the same shape, -127 to 127, and float32 scales that broadcast against it.

    >>> integers, scale = quantize(np.array([[0.5, -2.0], [0.25, 1.0]], np.float32), 0)
    >>> integers.tolist(), (127 * scale).round(6).tolist()
    ([[32, -127], [32, 127]], [[2.0], [1.0]])
    """
    channel_axis %= kernel.ndim
    others = tuple(axis for axis in range(kernel.ndim) if axis != channel_axis)
    scale = np.max(np.abs(kernel), axis=others, keepdims=True) / np.float32(_LEVELS)
    # A channel of zeros, such as that of a block that does nothing, has no scale.
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.rint(kernel / scale).astype(np.int8), scale


def quantized_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a state dict of PyTorch's names with int8 kernels.

    Args:
        tensors: float32 arrays. Those named ``*.weight`` with two or more dimensions are kernels;
            their first axis is that of the output channels.

    Returns:
        The same names, where each kernel is followed by its scales, ``*.weight_scale``.
    """
    result: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        if name.endswith(".weight") and array.ndim > 1:
            result[name], result[name + SCALE] = quantize(array, 0)
        else:
            result[name] = array
    return result


def dequantized_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return tensors with every int8 tensor that has scales multiplied by them, as float32.

    Raises:
        ValueError: The scales of a tensor do not fit it.
    """
    result: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        of = name.removesuffix(SCALE)
        if of != name and of in tensors and tensors[of].dtype == np.int8:
            continue
        scale = tensors.get(name + SCALE)
        if scale is not None and array.dtype == np.int8:
            expected = (*array.shape[:1], *(1,) * (array.ndim - 1))
            if scale.shape != expected or scale.dtype != np.float32:
                raise ValueError(
                    f"{name + SCALE} must be float32{list(expected)}, but it is "
                    f"{scale.dtype}{list(scale.shape)}"
                )
            array = array.astype(np.float32) * scale
        result[name] = array
    return result
