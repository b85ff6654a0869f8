"""Conversion of a traced function, equation by equation.

Equations whose operands are all constant are computed at once, so that nothing that depends on the
weights alone remains in the graph.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from resnet_jax.export.onnx.errors import UnsupportedError
from resnet_jax.export.onnx.graph import Graph, Shape, is_symbolic
from resnet_jax.export.onnx.rules import ELEMENTWISE, TRANSLATIONS
from resnet_jax.export.onnx.rules.shapes import changed_axes
from resnet_jax.export.onnx.values import Value, constant

# Parameters of equations that contain the function which the equation calls.
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_LOOPS = ("scan", "while", "cond")

# Operations on constants that repeat their values along axes of unknown size.
_REARRANGEMENTS = {"concatenate", "iota", "pad", "reshape", "rev", "slice", "split", "stack"}

# Their translations know more about a constant than its values, such as along which axes it repeats
# them. The size of an axis has no operands and may be unknown.
_NEVER_COMPUTED = {
    "broadcast_in_dim",
    "dim_as_value",
    "reduce_window_sum",
    "squeeze",
    "transpose",
}


def convert(
    graph: Graph, jaxpr: core.Jaxpr, constants: Sequence[Any], arguments: Sequence[Value]
) -> list[Value]:
    """Add the nodes that compute a traced function, and return the values of its results.

    Args:
        graph: The graph.
        jaxpr: The function.
        constants: The arrays that it contains.
        arguments: The values of its arguments.

    Raises:
        UnsupportedError: A primitive has no translation; the message names it and its layer.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return _convert(graph, jaxpr, list(map(constant, constants)), arguments, "")


def _convert(
    graph: Graph,
    jaxpr: core.Jaxpr,
    constants: Sequence[Value],
    arguments: Sequence[Value],
    scope: str,
) -> list[Value]:
    values: dict[core.Var, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)

    def read(atom: core.Var | core.Literal) -> Value:
        if isinstance(atom, core.Literal):
            aval: Any = atom.aval
            return constant(np.asarray(atom.val, aval.dtype))
        return values[atom]

    for equation in _needed(jaxpr):
        layer = _joined(scope, str(equation.source_info.name_stack))
        with _located(graph, equation, layer):
            results = _results(graph, equation, [read(atom) for atom in equation.invars], layer)
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: core.Jaxpr) -> list[Any]:
    """Return the equations that the results depend on."""
    needed = {id(atom) for atom in jaxpr.outvars}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if any(id(variable) in needed for variable in equation.outvars):
            needed.update(map(id, equation.invars))
            equations.append(equation)
    return equations[::-1]


@contextlib.contextmanager
def _located(graph: Graph, equation: Any, layer: str) -> Iterator[None]:
    """Name the nodes of a block after the layer, and the layer in its errors."""
    graph.scope = layer
    try:
        yield
    except UnsupportedError as error:
        if error.layer is not None:
            raise
        raise UnsupportedError(
            f"{error} (primitive {equation.primitive.name!r} in {layer or 'the function'})",
            layer=layer,
        ) from None


def _results(graph: Graph, equation: Any, operands: list[Value], layer: str) -> list[Value]:
    name = equation.primitive.name
    if name == "scan":
        return _unrolled(graph, equation, operands, layer)
    if name == "cond":
        return _chosen(graph, equation, operands, layer)
    if name not in _LOOPS:
        for parameter in _CALLED:
            if isinstance(called := equation.params.get(parameter), core.ClosedJaxpr | core.Jaxpr):
                return _called(graph, called, operands, layer)
    computed = _computed(equation, operands)
    if computed is not None:
        return computed
    if name not in TRANSLATIONS:
        raise UnsupportedError(f"{name!r} has no translation to ONNX")
    results = TRANSLATIONS[name](graph, equation, *operands)
    return results if isinstance(results, list) else [results]


def _called(
    graph: Graph, called: core.ClosedJaxpr | core.Jaxpr, operands: Sequence[Value], layer: str
) -> list[Value]:
    """Convert the function that an equation calls."""
    if isinstance(called, core.ClosedJaxpr):
        return _convert(graph, called.jaxpr, list(map(constant, called.consts)), operands, layer)
    return _convert(graph, called, [], operands, layer)


def _unrolled(graph: Graph, equation: Any, operands: list[Value], layer: str) -> list[Value]:
    """Convert each iteration of a loop over stacked constants, such as the blocks of a stage."""
    params = equation.params
    num_constants, num_carried = params["num_consts"], params["num_carry"]
    constants = operands[:num_constants]
    carried = operands[num_constants : num_constants + num_carried]
    stacked = [operand.array for operand in operands[num_constants + num_carried :]]
    if is_symbolic(params["length"]) or len(equation.outvars) > num_carried:
        raise UnsupportedError(
            "a loop of unknown length or with stacked results has no translation to ONNX"
        )
    steps = range(params["length"])
    for i in reversed(steps) if params["reverse"] else steps:
        if any(array is None for array in stacked):
            raise UnsupportedError("a loop over parts of the images has no translation to ONNX")
        slices = [constant(array[i]) for array in stacked if array is not None]
        carried = _called(graph, params["jaxpr"], [*constants, *carried, *slices], layer)
    return carried


def _chosen(graph: Graph, equation: Any, operands: list[Value], layer: str) -> list[Value]:
    """Convert the branch that a constant chooses."""
    which, *arguments = operands
    branches = equation.params["branches"]
    if which.array is None:
        raise UnsupportedError("a condition on the images has no translation to ONNX")
    index = min(max(int(which.array), 0), len(branches) - 1)
    return _called(graph, branches[index], arguments, layer)


def _computed(equation: Any, operands: list[Value]) -> list[Value] | None:
    """Return the results of an equation if they are constant, and None otherwise."""
    name = equation.primitive.name
    if name in _NEVER_COMPUTED or not all(operand.is_constant for operand in operands):
        return None
    arrays = [operand.array for operand in operands]
    shapes = [variable.aval.shape for variable in equation.outvars]
    if name in ELEMENTWISE:
        ranked = [array for array in arrays if array is not None and array.ndim]
        common = np.broadcast_shapes(*(array.shape for array in ranked))
        arrays = [
            np.broadcast_to(array, common) if array is not None and array.ndim else array
            for array in arrays
        ]
        return _evaluated(equation, arrays, equation.params, shapes, operands)
    symbolic = any(map(is_symbolic, (size for shape in shapes for size in shape))) or any(
        map(is_symbolic, (size for operand in operands for size in operand.shape))
    )
    if symbolic and not _may_be_rearranged(equation, operands):
        return None
    # Along an axis of unknown size, the one value that is repeated stands for all.
    arrays = [
        np.broadcast_to(
            operand.array,
            [
                size if is_symbolic(whole) else whole
                for size, whole in zip(operand.sizes, operand.shape, strict=True)
            ],
        )
        for operand in operands
        if operand.array is not None
    ]
    params = jax.tree.map(lambda leaf: 1 if is_symbolic(leaf) else leaf, equation.params)
    return _evaluated(equation, arrays, params, shapes, operands)


def _may_be_rearranged(equation: Any, operands: list[Value]) -> bool:
    """Return whether the one value that is repeated along an axis remains that of the result."""
    name = equation.primitive.name
    if name not in _REARRANGEMENTS:
        return False
    shape = equation.outvars[0].aval.shape
    if name in ("concatenate", "iota"):
        return not is_symbolic(shape[equation.params["dimension"]])
    if name == "reshape":
        before, after = changed_axes(operands[0].shape, shape)
        return not any(is_symbolic(operands[0].shape[axis]) for axis in before) and not any(
            is_symbolic(shape[axis]) for axis in after
        )
    return True


def _evaluated(
    equation: Any,
    arrays: Sequence[Any],
    params: dict[str, Any],
    shapes: Sequence[Shape],
    operands: Sequence[Value],
) -> list[Value] | None:
    """Compute an equation, in which axes of unknown size have size 1."""
    results = equation.primitive.bind(*arrays, **params)
    results = results if equation.primitive.multiple_results else [results]
    labels = {operand.label for operand in operands if operand.label is not None}
    label = labels.pop() if len(labels) == 1 else None
    values = []
    for result, shape in zip(results, shapes, strict=True):
        if any(
            size not in (1, whole) if not is_symbolic(whole) else size != 1
            for size, whole in zip(result.shape, shape, strict=True)
        ):
            return None
        values.append(constant(np.asarray(result), shape, label))
    return values


def _joined(scope: str, name: str) -> str:
    """Return the name of a layer within another one, without the names of classes and methods."""
    parts = [part for part in name.split("/") if part and "." not in part and part[0].islower()]
    return "/".join([scope, *parts] if scope else parts)
