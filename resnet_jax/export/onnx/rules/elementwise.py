"""Operations on single elements."""

import dataclasses
from collections.abc import Callable

import numpy as np

from resnet_jax.export.onnx.errors import UnsupportedError
from resnet_jax.export.onnx.graph import Graph
from resnet_jax.export.onnx.rules.registry import TRANSLATIONS, Equation, result_of, translates
from resnet_jax.export.onnx.values import (
    Value,
    broadcast_sizes,
    common_order,
    onnx_type,
    stored,
    tensor,
)

ELEMENTWISE: set[str] = set()
"""Names of the primitives that compute each element by itself."""

Nodes = Callable[..., str]
"""Takes (graph, equation, *names of the operands' tensors), and returns that of the result."""

_OPERATORS = {
    "abs": "Abs",
    "add": "Add",
    "and": "And",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
    "xor": "Xor",
}
"""Primitives that are one operator of ONNX."""

# ONNX has other operators for the bits of integers.
_LOGICAL = {"and", "not", "or", "xor"}


def elementwise(primitive: str) -> Callable[[Nodes], Nodes]:
    """Return a decorator that registers the nodes that compute a primitive."""

    def register(nodes: Nodes) -> Nodes:
        def translate(graph: Graph, equation: Equation, *operands: Value) -> Value:
            order = common_order(operands)
            names = [stored(graph, operand, order) for operand in operands]
            result = result_of(equation)
            name = nodes(graph, equation, *names)
            return tensor(name, result.shape, result.dtype, order, broadcast_sizes(operands))

        TRANSLATIONS[primitive] = translate
        ELEMENTWISE.add(primitive)
        return nodes

    return register


def _operator(primitive: str, operator: str) -> Nodes:
    def nodes(graph: Graph, equation: Equation, *names: str) -> str:
        dtype = equation.invars[0].aval.dtype
        if primitive in _LOGICAL and dtype != np.bool_:
            raise UnsupportedError(f"{primitive!r} of {dtype} has no translation to ONNX")
        return graph.node(operator, names)

    return nodes


for _primitive, _name in _OPERATORS.items():
    elementwise(_primitive)(_operator(_primitive, _name))


def _scalar(graph: Graph, number: float, equation: Equation) -> str:
    """Return the name of a constant scalar of the type of the result."""
    return graph.constant(np.asarray(number, result_of(equation).dtype))


@elementwise("rem")
def _remainder(graph: Graph, equation: Equation, x: str, y: str) -> str:
    return graph.node("Mod", [x, y], fmod=1)


@elementwise("ne")
def _differ(graph: Graph, equation: Equation, x: str, y: str) -> str:
    return graph.node("Not", [graph.node("Equal", [x, y])])


@elementwise("square")
def _square(graph: Graph, equation: Equation, x: str) -> str:
    return graph.node("Mul", [x, x])


@elementwise("integer_pow")
def _integer_power(graph: Graph, equation: Equation, x: str) -> str:
    power = equation.params["y"]
    if power == 2:
        return graph.node("Mul", [x, x])
    return graph.node("Pow", [x, _scalar(graph, power, equation)])


@elementwise("rsqrt")
def _reciprocal_root(graph: Graph, equation: Equation, x: str) -> str:
    return graph.node("Reciprocal", [graph.node("Sqrt", [x])])


@elementwise("exp2")
def _power_of_two(graph: Graph, equation: Equation, x: str) -> str:
    return graph.node("Pow", [_scalar(graph, 2, equation), x])


@elementwise("erfc")
def _complement_of_erf(graph: Graph, equation: Equation, x: str) -> str:
    return graph.node("Sub", [_scalar(graph, 1, equation), graph.node("Erf", [x])])


@elementwise("expm1")
def _exponential_minus_one(graph: Graph, equation: Equation, x: str) -> str:
    return graph.node("Sub", [graph.node("Exp", [x]), _scalar(graph, 1, equation)])


@elementwise("log1p")
def _logarithm_of_one_plus(graph: Graph, equation: Equation, x: str) -> str:
    return graph.node("Log", [graph.node("Add", [x, _scalar(graph, 1, equation)])])


@elementwise("clamp")
def _clamp(graph: Graph, equation: Equation, least: str, x: str, most: str) -> str:
    return graph.node("Min", [graph.node("Max", [x, least]), most])


@elementwise("select_n")
def _select(graph: Graph, equation: Equation, which: str, *cases: str) -> str:
    if equation.invars[0].aval.dtype != np.bool_:
        raise UnsupportedError("a choice by an integer has no translation to ONNX")
    if_false, if_true = cases
    return graph.node("Where", [which, if_true, if_false])


@elementwise("convert_element_type")
def _convert(graph: Graph, equation: Equation, x: str) -> str:
    return graph.node("Cast", [x], to=onnx_type(result_of(equation).dtype))


# Some operands have a simpler translation.
_plain_maximum, _plain_quotient, _plain_conversion = (
    TRANSLATIONS[primitive] for primitive in ("max", "div", "convert_element_type")
)


@translates("max")
def _maximum(graph: Graph, equation: Equation, x: Value, y: Value) -> Value | list[Value]:
    for value, other in ((x, y), (y, x)):
        if value.shape != result_of(equation).shape:
            continue
        if other.is_filled_with(-np.inf):
            return value
        if other.is_filled_with(0):
            name = graph.node("Relu", [stored(graph, value, value.order)])
            return tensor(name, value.shape, value.dtype, value.order, value.sizes)
    return _plain_maximum(graph, equation, x, y)


@translates("div")
def _quotient(graph: Graph, equation: Equation, x: Value, y: Value) -> Value | list[Value]:
    mean = None if x.mean is None else x.mean(y)
    return _plain_quotient(graph, equation, x, y) if mean is None else mean


@translates("convert_element_type")
def _conversion(graph: Graph, equation: Equation, x: Value) -> Value | list[Value]:
    if x.dtype == result_of(equation).dtype:
        return x
    converted = _plain_conversion(graph, equation, x)
    assert isinstance(converted, Value)
    return dataclasses.replace(converted, size=x.size)
