"""Sums, means and extrema along axes."""

import dataclasses
import math
from collections.abc import Sequence

from resnet_jax.export.onnx.graph import Graph, Shape
from resnet_jax.export.onnx.rules.registry import Equation, result_of, translates
from resnet_jax.export.onnx.values import Value, expanded, onnx_type, stored, tensor

_OPERATORS = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
}


@translates(*_OPERATORS)
def _reduce(graph: Graph, equation: Equation, x: Value) -> Value:
    axes, shape = equation.params["axes"], result_of(equation).shape
    x = expanded(graph, x, axes)
    result = _reduced(graph, _OPERATORS[equation.primitive.name], x, axes, shape)
    if equation.primitive.name != "reduce_sum":
        return result
    terms = math.prod(x.shape[axis] for axis in axes)
    scope = graph.scope

    def mean(divisor: Value) -> Value | None:
        counts = divisor.size == terms if divisor.size is not None else False
        if not counts and not (isinstance(terms, int) and divisor.is_filled_with(terms)):
            return None
        graph.scope = scope
        return _reduced(graph, "ReduceMean", x, axes, shape)

    return dataclasses.replace(result, mean=mean)


def _reduced(graph: Graph, operator: str, x: Value, axes: Sequence[int], shape: Shape) -> Value:
    kept = [axis for axis in range(x.rank) if axis not in axes]
    places = sorted(x.order.index(axis) for axis in axes)
    name = graph.node(operator, [stored(graph, x, x.order), graph.integers(places)], keepdims=0)
    order = tuple(kept.index(axis) for axis in x.order if axis in kept)
    return tensor(name, shape, x.dtype, order, [x.sizes[axis] for axis in kept])


@translates("argmax", "argmin")
def _position(graph: Graph, equation: Equation, x: Value) -> Value:
    [axis] = equation.params["axes"]
    x = expanded(graph, x, [axis])
    operator = {"argmax": "ArgMax", "argmin": "ArgMin"}[equation.primitive.name]
    name = graph.node(operator, [stored(graph, x, x.order)], axis=x.order.index(axis), keepdims=0)
    dtype = result_of(equation).dtype
    name = graph.node("Cast", [name], to=onnx_type(dtype))
    kept = [other for other in range(x.rank) if other != axis]
    order = tuple(kept.index(other) for other in x.order if other != axis)
    shape = result_of(equation).shape
    return tensor(name, shape, dtype, order, [x.sizes[other] for other in kept])
