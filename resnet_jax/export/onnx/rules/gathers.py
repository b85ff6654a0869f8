"""Elements at given positions."""

import math
from typing import Any

import numpy as np

from resnet_jax.export.onnx.errors import UnsupportedError
from resnet_jax.export.onnx.graph import Graph, is_symbolic
from resnet_jax.export.onnx.rules.registry import Equation, result_of, translates
from resnet_jax.export.onnx.rules.shapes import without_axes
from resnet_jax.export.onnx.values import Value, expanded, identity, stored, tensor


@translates("gather")
def _gather(graph: Graph, equation: Equation, x: Value, indices: Value) -> Value:
    numbers = equation.params["dimension_numbers"]
    whole = all(
        size == (x.shape[axis] if axis not in numbers.collapsed_slice_dims else 1)
        for axis, size in enumerate(equation.params["slice_sizes"])
        if axis not in numbers.operand_batching_dims
    )
    if whole and tuple(numbers.start_index_map) == tuple(numbers.collapsed_slice_dims):
        if indices.array is not None and all(
            indices.sizes[axis] == 1 for axis in numbers.start_indices_batching_dims
        ):
            return _at_constant_positions(graph, equation, x, indices.array)
        if len(numbers.start_index_map) == 1 and not numbers.offset_dims:
            return _along_axis(graph, equation, x, indices)
    raise UnsupportedError("this kind of 'gather' has no translation to ONNX")


def _at_constant_positions(
    graph: Graph, equation: Equation, x: Value, indices: np.ndarray
) -> Value:
    """Translate the same positions in all examples, along any number of axes."""
    numbers, result = equation.params["dimension_numbers"], result_of(equation)
    batch, gathered = tuple(numbers.operand_batching_dims), tuple(numbers.collapsed_slice_dims)
    rest = tuple(axis for axis in range(x.rank) if axis not in (*batch, *gathered))
    x = expanded(graph, x)
    sizes = [x.shape[axis] for axis in gathered]
    if any(map(is_symbolic, sizes)):
        raise UnsupportedError("positions in an image of unknown size have no translation to ONNX")

    # Axes of the result: those of the positions, with those of x that are kept whole inserted.
    of_indices = [axis for axis in range(len(result.shape)) if axis not in numbers.offset_dims]
    of_batch = [of_indices[axis] for axis in numbers.start_indices_batching_dims]
    of_positions = [axis for axis in of_indices if axis not in of_batch]
    order = (*of_batch, *of_positions, *numbers.offset_dims)

    positions = indices.reshape(*(result.shape[axis] for axis in of_positions), len(gathered))
    bounded = np.clip(positions, 0, np.asarray(sizes) - 1)
    places = np.ravel_multi_index(tuple(np.moveaxis(bounded, -1, 0)), sizes)

    name = stored(graph, x, (*batch, *gathered, *rest))
    if len(gathered) > 1:
        kept = [x.shape[axis] for axis in rest]
        target = [*(0 for _ in batch), math.prod(sizes), *kept]
        name = graph.node("Reshape", [name, graph.shape(target)])
    name = graph.node("Gather", [name, graph.constant(places.astype(np.int64))], axis=len(batch))
    gathered_value = tensor(name, result.shape, result.dtype, order)
    outside = (bounded != positions).any(axis=-1)
    if not _fills(equation) or not outside.any():
        return gathered_value
    mask = outside.reshape([1] * len(batch) + list(outside.shape) + [1] * len(rest))
    fill = _fill_value(equation, result.dtype)
    name = graph.node("Where", [graph.constant(mask), graph.constant(fill), name])
    return tensor(name, result.shape, result.dtype, order)


def _along_axis(graph: Graph, equation: Equation, x: Value, indices: Value) -> Value:
    """Translate `jax.numpy.take_along_axis`, whose positions are within the bounds."""
    numbers, result = equation.params["dimension_numbers"], result_of(equation)
    [axis] = numbers.collapsed_slice_dims
    batch = tuple(numbers.operand_batching_dims)
    if (*batch, axis) != tuple(sorted((*batch, axis))) and sorted((*batch, axis)) != list(
        range(x.rank)
    ):
        raise UnsupportedError("this kind of 'gather' has no translation to ONNX")
    positions = without_axes(graph, expanded(graph, indices), [indices.rank - 1])
    x = expanded(graph, x)
    # The axes of the positions, in the order of those of x.
    of_axis = [i for i in range(positions.rank) if i not in numbers.start_indices_batching_dims]
    if sorted((*batch, axis)) != list(range(x.rank)) or len(of_axis) != 1:
        raise UnsupportedError("this kind of 'gather' has no translation to ONNX")
    of_x = dict(zip(batch, numbers.start_indices_batching_dims, strict=True)) | {axis: of_axis[0]}
    order = tuple(of_x[i] for i in range(x.rank))
    name = graph.node(
        "GatherElements",
        [stored(graph, x, identity(x.rank)), stored(graph, positions, order)],
        axis=axis,
    )
    return tensor(name, result.shape, result.dtype, order)


def _fills(equation: Equation) -> bool:
    """Return whether positions outside the array give a fixed value, not the nearest element."""
    return "FILL" in str(equation.params["mode"]).upper()


def _fill_value(equation: Equation, dtype: Any) -> np.ndarray:
    fill = equation.params["fill_value"]
    if fill is None:
        fill = np.nan if np.issubdtype(dtype, np.inexact) else 0
    return np.asarray(fill, dtype)
