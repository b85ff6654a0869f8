"""Operations that rearrange elements: most of them only change the layout of a tensor."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax.export.onnx.errors import UnsupportedError
from resnet_jax.export.onnx.graph import Graph, Shape, Size, is_symbolic
from resnet_jax.export.onnx.rules.registry import Equation, result_of, translates
from resnet_jax.export.onnx.values import (
    Value,
    common_order,
    constant,
    expanded,
    identity,
    onnx_type,
    stored,
    tensor,
)

# Arrays of one value for each example, and each channel or each group and channel.
_LARGEST_RANK_OF_FACTORS = 3

# ONNX reads these as "up to the last element", forward and backward.
_END, _BEGINNING = np.iinfo(np.int64).max, np.iinfo(np.int64).min


@translates("copy", "copy_p", "name", "optimization_barrier", "pvary", "stop_gradient")
def _unchanged(graph: Graph, equation: Equation, *operands: Value) -> list[Value]:
    return list(operands)


@translates("dim_as_value")
def _size_of_axis(graph: Graph, equation: Equation) -> Value:
    size, dtype = equation.params["dim"], result_of(equation).dtype
    scalar = graph.node("Squeeze", [graph.size(size), graph.integers([0])])
    name = graph.node("Cast", [scalar], to=onnx_type(dtype))
    return dataclasses.replace(tensor(name, (), dtype, ()), size=size)


@translates("broadcast_in_dim")
def _broadcast(graph: Graph, equation: Equation, x: Value) -> Value:
    return with_axes(graph, x, equation.params["shape"], equation.params["broadcast_dimensions"])


def with_axes(graph: Graph, x: Value, shape: Sequence[Size], axes: Sequence[int]) -> Value:
    """Return the value with new axes, along which it repeats its elements.

    Args:
        graph: The graph.
        x: The value.
        shape: Shape of the result.
        axes: For each axis of ``x``, which axis of the result it becomes.
    """
    axes = [int(axis) for axis in axes]
    new = [axis for axis in range(len(shape)) if axis not in axes]
    tensor_sizes = [1] * len(shape)
    for axis, size in zip(axes, x.sizes, strict=True):
        tensor_sizes[axis] = size
    if x.array is not None:
        return constant(x.array.reshape(tensor_sizes), shape, x.label)
    order = tuple(axes[axis] for axis in x.order)
    if x.rank <= _LARGEST_RANK_OF_FACTORS and 1 in new and len(shape) - 1 not in new:
        # Factors for the channels of images are stored as images are: with pixels at the end.
        order = (*order, *new)
    else:
        for axis in new:
            place = order.index(axis - 1) + 1 if axis else 0
            order = (*order[:place], axis, *order[place:])
    name = x.name
    if new:
        places = sorted(order.index(axis) for axis in new)
        name = graph.node("Unsqueeze", [x.name, graph.integers(places)])
    result = tensor(name, shape, x.dtype, order, tensor_sizes)
    mean = x.mean
    if mean is None:
        return result

    def mean_with_axes(divisor: Value) -> Value | None:
        value = mean(divisor)
        return None if value is None else with_axes(graph, value, shape, axes)

    return dataclasses.replace(result, mean=mean_with_axes)


@translates("squeeze")
def _squeeze(graph: Graph, equation: Equation, x: Value) -> Value:
    return without_axes(graph, x, equation.params["dimensions"])


def without_axes(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
    """Return the value without some axes of size 1."""
    kept = [axis for axis in range(x.rank) if axis not in axes]
    shape, sizes = ([sizes[axis] for axis in kept] for sizes in (x.shape, x.sizes))
    if x.array is not None:
        return constant(x.array.reshape(sizes), shape, x.label)
    places = sorted(x.order.index(axis) for axis in axes)
    name = graph.node("Squeeze", [x.name, graph.integers(places)]) if places else x.name
    order = tuple(kept.index(axis) for axis in x.order if axis in kept)
    return tensor(name, shape, x.dtype, order, sizes)


@translates("transpose")
def _transpose(graph: Graph, equation: Equation, x: Value) -> Value:
    axes = equation.params["permutation"]
    shape, sizes = ([sizes[axis] for axis in axes] for sizes in (x.shape, x.sizes))
    if x.array is not None:
        return constant(x.array.transpose(axes), shape, x.label)
    return tensor(x.name, shape, x.dtype, tuple(axes.index(axis) for axis in x.order), sizes)


def changed_axes(old: Shape, new: Shape) -> tuple[range, range]:
    """Return the axes that a reshape changes, before and after it.

    The axes in front of them are equal in both shapes, and so are those behind them.
    """
    shorter = min(len(old), len(new))
    front = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    back = next((i for i in range(shorter - front) if old[-1 - i] != new[-1 - i]), shorter - front)
    return range(front, len(old) - back), range(front, len(new) - back)


@translates("reshape")
def _reshape(graph: Graph, equation: Equation, x: Value) -> Value:
    return reshaped(graph, x, equation.params["new_sizes"])


def reshaped(graph: Graph, x: Value, shape: Shape) -> Value:
    """Return the value in another shape.

    The tensor keeps its layout if one axis is split, or if the axes that are merged are stored one
    after the other.
    """
    before, after = changed_axes(x.shape, shape)
    if len(before) == len(after) == 0:
        return x
    x = expanded(graph, x, before)
    places = [x.order.index(axis) for axis in before]
    consecutive = places == list(range(places[0], places[0] + len(places))) if places else True
    if consecutive and (len(before) <= 1 or len(after) == 1):
        old_order = x.order
        place = places[0] if places else len(old_order)
    else:
        old_order, place = identity(x.rank), before.start
    added = len(after) - len(before)
    rest = [
        axis if axis < before.start else axis + added for axis in old_order if axis not in before
    ]
    order = (*rest[:place], *after, *rest[place:])
    tensor_sizes = (
        *x.sizes[: before.start],
        *(shape[axis] for axis in after),
        *x.sizes[before.stop :],
    )
    if x.array is not None and not any(map(is_symbolic, tensor_sizes)):
        return constant(x.array.reshape(tensor_sizes), shape, x.label)
    target = _target(graph, [tensor_sizes[axis] for axis in order], place)
    name = graph.node("Reshape", [stored(graph, x, old_order), target])
    return tensor(name, shape, x.dtype, order, tensor_sizes)


def _target(graph: Graph, sizes: Sequence[Size], changed: int) -> str:
    """Return the name of the second input of Reshape.

    Args:
        graph: The graph.
        sizes: Sizes of the new axes, in the order in which they are stored.
        changed: Place of the first new axis whose size differs from the old one at this place.
    """
    # 0 keeps the size at the same place, and -1 is what remains.
    known = [0 if is_symbolic(size) and i < changed else size for i, size in enumerate(sizes)]
    if sum(map(is_symbolic, known)) == 1:
        known = [-1 if is_symbolic(size) else size for size in known]
    return graph.shape(known)


@translates("slice")
def _slice(graph: Graph, equation: Equation, x: Value) -> Value:
    params = equation.params
    strides = params["strides"] or (1,) * x.rank
    shape = result_of(equation).shape
    return sliced(graph, x, params["start_indices"], params["limit_indices"], strides, shape)


def sliced(
    graph: Graph,
    x: Value,
    starts: Sequence[Size],
    limits: Sequence[Size],
    strides: Sequence[int],
    shape: Sequence[Size],
) -> Value:
    """Return a part of the value.

    Args:
        graph: The graph.
        x: The value.
        starts: First index along each axis.
        limits: Index after the last one along each axis.
        strides: Distance between indices along each axis.
        shape: Shape of the part.
    """
    cut = [
        axis
        for axis in range(x.rank)
        if x.sizes[axis] != 1
        and (starts[axis] != 0 or limits[axis] != x.shape[axis] or strides[axis] != 1)
    ]
    sizes = [shape[axis] if axis in cut else x.sizes[axis] for axis in range(x.rank)]
    if not cut:
        return dataclasses.replace(x, shape=tuple(shape), sizes=tuple(sizes), mean=None)
    names = [
        stored(graph, x, x.order),
        graph.shape([starts[axis] for axis in cut]),
        graph.shape([_end(limits[axis], x.shape[axis]) for axis in cut]),
        graph.integers([x.order.index(axis) for axis in cut]),
        graph.integers([strides[axis] for axis in cut]),
    ]
    return tensor(graph.node("Slice", names), shape, x.dtype, x.order, sizes)


def _end(limit: Size, size: Size) -> Size:
    """Return where a slice ends, without symbols if its distance from the end is a number."""
    if not is_symbolic(limit):
        return limit
    beyond = limit - size
    if is_symbolic(beyond):
        return limit
    return _END if beyond == 0 else int(beyond)


@translates("rev")
def _reverse(graph: Graph, equation: Equation, x: Value) -> Value:
    axes = [axis for axis in equation.params["dimensions"] if x.sizes[axis] != 1]
    if not axes:
        return x
    count = len(axes)
    name = graph.node(
        "Slice",
        [
            stored(graph, x, x.order),
            graph.integers([-1] * count),
            graph.integers([_BEGINNING] * count),
            graph.integers([x.order.index(axis) for axis in axes]),
            graph.integers([-1] * count),
        ],
    )
    return tensor(name, x.shape, x.dtype, x.order, x.sizes)


@translates("pad")
def _pad(graph: Graph, equation: Equation, x: Value, value: Value) -> Value:
    config = equation.params["padding_config"]
    if any(interior for *_, interior in config):
        raise UnsupportedError("padding between elements has no translation to ONNX")
    x = expanded(graph, x, [axis for axis in range(x.rank) if config[axis] != (0, 0, 0)])
    shape = result_of(equation).shape
    sizes = [x.sizes[axis] if config[axis] == (0, 0, 0) else shape[axis] for axis in range(x.rank)]
    pads = [config[axis][end] for end in (0, 1) for axis in x.order]
    names = [stored(graph, x, x.order), graph.shape(pads), stored(graph, value, ())]
    return tensor(graph.node("Pad", names), shape, x.dtype, x.order, sizes)


@translates("concatenate")
def _concatenate(graph: Graph, equation: Equation, *parts: Value) -> Value:
    parts = tuple(expanded(graph, part) for part in parts)
    return _joined(graph, parts, equation.params["dimension"], result_of(equation))


def _joined(graph: Graph, parts: Sequence[Value], axis: int, result: Any) -> Value:
    """Return the concatenation of values along an axis, of the shape and type of the result."""
    order = common_order(parts)
    names = [stored(graph, part, order) for part in parts]
    name = graph.node("Concat", names, axis=order.index(axis))
    return tensor(name, result.shape, result.dtype, order)


@translates("stack")
def _stack(graph: Graph, equation: Equation, *parts: Value) -> Value:
    result, axis = result_of(equation), equation.params["axis"]
    axes = [other for other in range(len(result.shape)) if other != axis]
    shape = [1 if i == axis else size for i, size in enumerate(result.shape)]
    layers = [expanded(graph, with_axes(graph, part, shape, axes)) for part in parts]
    return _joined(graph, layers, axis, result)


@translates("tile")
def _tile(graph: Graph, equation: Equation, x: Value) -> Value:
    x, result = expanded(graph, x), result_of(equation)
    repetitions = equation.params["reps"]
    names = [
        stored(graph, x, x.order),
        graph.integers([repetitions[axis] for axis in x.order]),
    ]
    return tensor(graph.node("Tile", names), result.shape, result.dtype, x.order)


@translates("split")
def _split(graph: Graph, equation: Equation, x: Value) -> list[Value]:
    axis, sizes = equation.params["axis"], equation.params["sizes"]
    x = expanded(graph, x, [axis])
    names = graph.nodes_outputs(
        "Split",
        [stored(graph, x, x.order), graph.shape(sizes)],
        len(sizes),
        axis=x.order.index(axis),
    )
    return [
        tensor(
            name,
            variable.aval.shape,
            x.dtype,
            x.order,
            [size if i == axis else other for i, other in enumerate(x.sizes)],
        )
        for name, variable, size in zip(names, equation.outvars, sizes, strict=True)
    ]
