"""Elements at given positions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax.export.onnx.errors import UnsupportedError
from resnet_jax.export.onnx.graph import Graph, is_symbolic
from resnet_jax.export.onnx.rules.registry import Equation, result_of, translates
from resnet_jax.export.onnx.rules.shapes import sliced, without_axes
from resnet_jax.export.onnx.values import Value, expanded, identity, stored, tensor

_UNKNOWN = "this kind of 'gather' has no translation to ONNX"


@translates("gather")
def _gather(graph: Graph, equation: Equation, x: Value, indices: Value) -> Value:
    numbers = equation.params["dimension_numbers"]
    if indices.array is None:
        return _along_axis(graph, equation, x, indices)
    if any(indices.sizes[axis] != 1 for axis in numbers.start_indices_batching_dims):
        raise UnsupportedError(_UNKNOWN)
    # Axes of the result: those of the positions, between which those of the slices are.
    result = result_of(equation)
    of_indices = [axis for axis in range(len(result.shape)) if axis not in numbers.offset_dims]
    of_batch = [of_indices[axis] for axis in numbers.start_indices_batching_dims]
    of_positions = [axis for axis in of_indices if axis not in of_batch]
    batch, gathered = tuple(numbers.operand_batching_dims), tuple(numbers.collapsed_slice_dims)
    kept = tuple(axis for axis in range(x.rank) if axis not in (*batch, *gathered))

    sizes = [result.shape[axis] for axis in of_positions]
    positions = indices.array.reshape(*sizes, len(numbers.start_index_map))
    by_axis = dict(zip(numbers.start_index_map, np.moveaxis(positions, -1, 0), strict=True))
    if not of_positions:
        x = _slices(graph, equation, x, (*gathered, *kept), by_axis)
        return without_axes(graph, x, gathered)
    if not gathered:
        raise UnsupportedError(_UNKNOWN)
    x = _slices(graph, equation, x, kept, by_axis)
    name = _taken(graph, equation, x, [batch, gathered, kept], by_axis)
    order = (*of_batch, *of_positions, *numbers.offset_dims)
    return tensor(name, result.shape, result.dtype, order)


def _slices(
    graph: Graph, equation: Equation, x: Value, axes: Sequence[int], by_axis: dict[int, np.ndarray]
) -> Value:
    """Cut axes, each at one position."""
    starts: list[Any] = [0] * x.rank
    limits: list[Any] = list(x.shape)
    for axis in axes:
        size = equation.params["slice_sizes"][axis]
        first = np.unique(by_axis.get(axis, np.zeros(1, np.int64)))
        if len(first) != 1:
            raise UnsupportedError(_UNKNOWN)
        starts[axis] = int(first[0])
        limits[axis] = starts[axis] + size
    shape = [limit - start for start, limit in zip(starts, limits, strict=True)]
    return sliced(graph, x, starts, limits, [1] * x.rank, shape)


def _taken(
    graph: Graph,
    equation: Equation,
    x: Value,
    axes: Sequence[tuple[int, ...]],
    by_axis: dict[int, np.ndarray],
) -> str:
    """Take the same elements along some axes in all examples.

    Args:
        graph: The graph.
        equation: The equation.
        x: The array.
        axes: The axes of the examples, the axes along which elements are taken, and the others. The
            tensor of the result stores them in this order.
        by_axis: The position of each element along each axis.
    """
    batch, gathered, kept = axes
    x = expanded(graph, x)
    sizes = [x.shape[axis] for axis in gathered]
    if any(map(is_symbolic, sizes)) or set(gathered) > set(by_axis):
        raise UnsupportedError(_UNKNOWN)
    positions = np.stack([by_axis[axis] for axis in gathered])
    bounds = np.asarray(sizes).reshape(-1, *[1] * (positions.ndim - 1)) - 1
    bounded = np.clip(positions, 0, bounds)
    places = np.asarray(np.ravel_multi_index(tuple(bounded), sizes), np.int64)

    name = stored(graph, x, (*batch, *gathered, *kept))
    if len(gathered) > 1:
        target = [*(0 for _ in batch), math.prod(sizes), *(x.shape[axis] for axis in kept)]
        if sum(map(is_symbolic, target)) == 1:
            target = [-1 if is_symbolic(size) else size for size in target]
        name = graph.node("Reshape", [name, graph.shape(target)])
    name = graph.node("Gather", [name, graph.constant(places)], axis=len(batch))
    outside = (bounded != positions).any(axis=0)
    if "FILL" not in str(equation.params["mode"]).upper() or not outside.any():
        return name
    fill = equation.params["fill_value"]
    if fill is None:
        fill = np.nan if np.issubdtype(x.dtype, np.inexact) else 0
    mask = outside.reshape(*[1] * len(batch), *outside.shape, *[1] * len(kept))
    value = graph.constant(np.asarray(fill, x.dtype))
    return graph.node("Where", [graph.constant(mask), value, name])


def _along_axis(graph: Graph, equation: Equation, x: Value, indices: Value) -> Value:
    """Translate `jax.numpy.take_along_axis`, whose positions must be within the bounds."""
    numbers, result = equation.params["dimension_numbers"], result_of(equation)
    batch, gathered = tuple(numbers.operand_batching_dims), tuple(numbers.collapsed_slice_dims)
    if (
        gathered != tuple(numbers.start_index_map)
        or len(gathered) != 1
        or sorted((*batch, *gathered)) != list(range(x.rank))
    ):
        raise UnsupportedError(_UNKNOWN)
    positions = without_axes(graph, expanded(graph, indices), [indices.rank - 1])
    [along] = set(range(positions.rank)) - set(numbers.start_indices_batching_dims)
    # The axis of the positions for each axis of x.
    of_x = dict(zip(batch, numbers.start_indices_batching_dims, strict=True))
    of_x[gathered[0]] = along
    order = tuple(of_x[axis] for axis in range(x.rank))
    names = [
        stored(graph, expanded(graph, x), identity(x.rank)),
        stored(graph, positions, order),
    ]
    name = graph.node("GatherElements", names, axis=gathered[0])
    return tensor(name, result.shape, result.dtype, order)
