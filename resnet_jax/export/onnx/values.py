"""Arrays of a traced function as tensors of an ONNX graph, with their layout.

JAX computes on images [B, H, W, C], and the convolutions of ONNX on [B, C, H, W].  So every tensor
has a layout: the order in which it stores the axes of the array.  A transposition of the array only
changes this order.  Operations on single elements and along axes keep the layout of their input, so
that a whole network transposes little more than the images.

A tensor may also have size 1 along an axis along which the array repeats its values.  Operations on
single elements broadcast it, and `expanded` repeats it for all others.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from resnet_jax.export.onnx.graph import Graph, Order, Shape, Size, is_symbolic


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """An array of the traced function.

    Attributes:
        shape: Sizes of its axes.
        dtype: Its type.
        sizes: Sizes of the tensor along the axes of the array: 1 where values are repeated.
        order: The layout of the tensor.
        name: Name of the tensor. Empty for a constant.
        array: The values of a constant, in the sizes ``sizes``. None if they depend on the input.
        label: Name for the tensor of a constant, such as ``"params/head/kernel"``.
        size: The size of an axis, if this is a scalar that contains it.
        mean: If this is a sum: maps a divisor to the mean, or to None if the divisor is not the
            number of terms.
        counts: If this is the number of pixels in each window, which padding does not count: the
            attributes of the windows.
    """

    shape: Shape
    dtype: np.dtype
    sizes: Shape
    order: Order
    name: str = ""
    array: np.ndarray | None = None
    label: str | None = None
    size: Size | None = None
    mean: "Callable[[Value], Value | None] | None" = None
    counts: dict[str, Any] | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_constant(self) -> bool:
        """Whether the values do not depend on the input."""
        return self.array is not None

    def is_filled_with(self, number: float) -> bool:
        """Return whether this is a constant of which all values are the number."""
        return self.array is not None and self.array.size > 0 and bool((self.array == number).all())


def constant(array: Any, shape: Sequence[Size] | None = None, label: str | None = None) -> Value:
    """Return a constant.

    Args:
        array: Its values.
        shape: Its shape, if it repeats the values along axes of size 1.
        label: Name for its tensor.
    """
    array = np.asarray(array)
    shape = array.shape if shape is None else tuple(shape)
    order = tuple(range(array.ndim))
    return Value(shape, array.dtype, array.shape, order, array=array, label=label)


def tensor(
    name: str, shape: Sequence[Size], dtype: Any, order: Order, sizes: Sequence[Size] | None = None
) -> Value:
    """Return the value of a tensor that depends on the input.

    Args:
        name: Name of the tensor.
        shape: Shape of the array.
        dtype: Type of the array.
        order: Layout of the tensor.
        sizes: Sizes of the tensor along the axes of the array, if it has size 1 along some.
    """
    shape = tuple(shape)
    return Value(shape, np.dtype(dtype), shape if sizes is None else tuple(sizes), order, name=name)


def identity(rank: int) -> Order:
    """Return the layout of a tensor that stores the axes of an array in their own order."""
    return tuple(range(rank))


def images_order(rank: int) -> Order:
    """Return the layout of images in ONNX: the last axis of the array is stored as the second."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else identity(rank)


def stored(graph: Graph, value: Value, order: Order) -> str:
    """Return the name of a tensor with the layout, which may have size 1 along repeated axes."""
    if value.rank == 0:
        order = ()
    if value.array is not None:
        return graph.constant(value.array, value.label, order)
    if order == value.order:
        return value.name
    return graph.transposed(value.name, tuple(value.order.index(axis) for axis in order))


def expanded(graph: Graph, value: Value, axes: Iterable[int] | None = None) -> Value:
    """Return the value with a tensor that has the full size along axes, by default along all."""
    axes = set(range(value.rank) if axes is None else axes)
    sizes = tuple(
        value.shape[axis] if axis in axes else value.sizes[axis] for axis in range(value.rank)
    )
    if all(new is old or new == old for new, old in zip(sizes, value.sizes, strict=True)):
        return value
    if value.array is not None and not any(map(is_symbolic, sizes)):
        return constant(np.broadcast_to(value.array, sizes), value.shape, value.label)
    name = graph.node(
        "Expand",
        [stored(graph, value, value.order), graph.shape([sizes[axis] for axis in value.order])],
    )
    return tensor(name, value.shape, value.dtype, value.order, sizes)


def common_order(values: Sequence[Value]) -> Order:
    """Return the layout in which an operation on single elements has least to transpose."""
    tensors = [value for value in values if value.rank and not value.is_constant]
    if not tensors:
        return identity(max(value.rank for value in values))
    # It costs nothing to transpose a tensor that has size 1 along most axes.
    return max(tensors, key=lambda value: sum(size != 1 for size in value.sizes)).order


def broadcast_sizes(values: Sequence[Value]) -> Shape:
    """Return the sizes of the tensor that an operation on single elements computes."""
    rank = max(value.rank for value in values)
    columns = zip(*(value.sizes for value in values if value.rank == rank), strict=True)
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in columns)


def onnx_type(dtype: Any) -> int:
    """Return the number that ONNX gives to a type of NumPy."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
