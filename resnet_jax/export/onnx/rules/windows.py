"""Convolutions and pooling."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax.export.onnx.errors import UnsupportedError
from resnet_jax.export.onnx.graph import Graph
from resnet_jax.export.onnx.rules.registry import Equation, result_of, translates
from resnet_jax.export.onnx.values import Value, expanded, images_order, stored, tensor


@translates("conv_general_dilated")
def _convolution(graph: Graph, equation: Equation, x: Value, kernel: Value) -> Value:
    params, result = equation.params, result_of(equation)
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise UnsupportedError("a transposed convolution has no translation to ONNX")
    numbers = params["dimension_numbers"]
    x, kernel = expanded(graph, x), expanded(graph, kernel)
    name = graph.node(
        "Conv",
        [stored(graph, x, numbers.lhs_spec), stored(graph, kernel, numbers.rhs_spec)],
        kernel_shape=[kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
        strides=params["window_strides"],
        pads=_pads(params["padding"]),
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    return tensor(name, result.shape, result.dtype, numbers.out_spec)


@translates("reduce_window_max")
def _maximum(graph: Graph, equation: Equation, x: Value) -> Value:
    order, result = images_order(x.rank), result_of(equation)
    images = stored(graph, expanded(graph, x), order)
    name = graph.node("MaxPool", [images], **_windows(equation))
    return tensor(name, result.shape, result.dtype, order)


@translates("reduce_window_sum")
def _total(graph: Graph, equation: Equation, x: Value) -> Value:
    """Translate a sum over windows to a mean, which is usually what follows, and a product."""
    order, shape = images_order(x.rank), result_of(equation).shape
    windows = _windows(equation)
    if set(windows.pop("dilations")) != {1}:
        raise UnsupportedError("a sum over dilated windows has no translation to ONNX")
    terms = math.prod(windows["kernel_shape"])
    images, scope = stored(graph, expanded(graph, x), order), graph.scope

    def average(*, count_padding: bool) -> Value:
        graph.scope = scope
        name = graph.node("AveragePool", [images], count_include_pad=int(count_padding), **windows)
        return tensor(name, shape, x.dtype, order)

    def mean(divisor: Value) -> Value | None:
        if divisor.counts == windows:
            return average(count_padding=False)
        return average(count_padding=True) if divisor.is_filled_with(terms) else None

    factor = graph.constant(np.asarray(terms, x.dtype))
    total = graph.node("Mul", [average(count_padding=True).name, factor])
    return dataclasses.replace(
        tensor(total, shape, x.dtype, order),
        mean=mean,
        counts=windows if x.is_filled_with(1) else None,
    )


def _windows(equation: Equation) -> dict[str, Any]:
    """Return the attributes of a pooling node.

    The windows extend over all axes but the first and the last.
    """
    params = equation.params
    size, strides, pads = (
        params[name] for name in ("window_dimensions", "window_strides", "padding")
    )
    outer = {(size[axis], strides[axis], tuple(pads[axis])) for axis in (0, -1)}
    if len(size) < 3 or outer != {(1, 1, (0, 0))} or set(params["base_dilation"]) != {1}:
        raise UnsupportedError("pooling over examples or channels has no translation to ONNX")
    return {
        "kernel_shape": list(size[1:-1]),
        "strides": list(strides[1:-1]),
        "pads": _pads(pads[1:-1]),
        "dilations": list(params["window_dilation"][1:-1]),
    }


def _pads(pads: Sequence[tuple[int, int]]) -> list[int]:
    """Return padding as ONNX lists it: before each axis, then after each axis."""
    if min(pixels for sides in pads for pixels in sides) < 0:
        raise UnsupportedError("negative padding has no translation to ONNX")
    return [sides[end] for end in (0, 1) for sides in pads]
