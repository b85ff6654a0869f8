"""Products of matrices."""

import string

from resnet_jax.export.onnx.graph import Graph
from resnet_jax.export.onnx.rules.registry import Equation, result_of, translates
from resnet_jax.export.onnx.values import Value, expanded, identity, stored, tensor


@translates("dot_general")
def _product(graph: Graph, equation: Equation, x: Value, y: Value) -> Value:
    (x_summed, y_summed), (x_batch, y_batch) = equation.params["dimension_numbers"]
    x_free, y_free = (
        [axis for axis in range(value.rank) if axis not in (*summed, *batch)]
        for value, summed, batch in ((x, x_summed, x_batch), (y, y_summed, y_batch))
    )
    x, y = expanded(graph, x), expanded(graph, y)
    result = result_of(equation)
    # MatMul multiplies the last two axes.  It takes one matrix as second operand, or equal stacks
    # of matrices.
    one_matrix = len(y_free) == 1 and not x_batch
    two_stacks = len(x_free) == len(y_free) == 1
    if len(x_summed) == 1 and (one_matrix or two_stacks):
        names = [
            stored(graph, x, (*x_batch, *x_free, *x_summed)),
            stored(graph, y, (*y_batch, *y_summed, *y_free)),
        ]
        name = graph.node("Gemm" if x.rank == y.rank == 2 else "MatMul", names)
    else:
        letters = dict(enumerate(string.ascii_lowercase[: x.rank]))
        others = dict(zip(y_free, string.ascii_uppercase, strict=False))
        others |= {
            y_axis: letters[x_axis]
            for x_axis, y_axis in zip((*x_batch, *x_summed), (*y_batch, *y_summed), strict=True)
        }
        terms = [
            [letters[axis] for axis in range(x.rank)],
            [others[axis] for axis in range(y.rank)],
            [*(letters[axis] for axis in (*x_batch, *x_free)), *(others[axis] for axis in y_free)],
        ]
        of_x, of_y, of_result = map("".join, terms)
        names = [stored(graph, value, identity(value.rank)) for value in (x, y)]
        name = graph.node("Einsum", names, equation=f"{of_x},{of_y}->{of_result}")
    return tensor(name, result.shape, result.dtype, identity(len(result.shape)))
