"""The ONNX graph while it is written: nodes, constants, and sizes that are known at run time."""

import ast
from collections.abc import Sequence
from typing import Any

import jax.export
import numpy as np
import onnx
from onnx import helper

from resnet_jax.export.onnx.errors import UnsupportedError

Size = Any
"""Size of an axis: an integer, or a symbolic dimension of `jax.export`."""

Shape = tuple[Size, ...]
"""Sizes of all axes of an array."""

Order = tuple[int, ...]
"""The axes of an array, in the order in which a tensor stores them."""

_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "Add",
    ast.Sub: "Sub",
    ast.Mult: "Mul",
    ast.Pow: "Pow",
}
_FUNCTIONS = {"max": "Max", "min": "Min", "mod": "Mod"}


def is_symbolic(size: Size) -> bool:
    """Return whether the size of an axis is only known when the graph runs."""
    return jax.export.is_symbolic_dim(size)


class Graph:
    """Nodes and constants in the order in which they are added.

    Attributes:
        scope: Name of the layer that is being converted, such as ``"stage1/block1/conv1"``. The
            names of its nodes begin with it.
        nodes: The nodes. The inputs of each are computed by earlier ones.
        constants: The constant tensors (initializers) by name.

    Args:
        input_name: Name of the input.
        input_shape: Its shape.
        output_names: Names of the outputs, which no other tensor gets.
    """

    def __init__(
        self, input_name: str, input_shape: Shape, output_names: Sequence[str] = ()
    ) -> None:
        self.scope = ""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._names = {input_name, *output_names}
        self._input_name = input_name
        self._axis_of = {str(size): i for i, size in enumerate(input_shape) if is_symbolic(size)}
        self._integers: dict[tuple[int, ...], str] = {}
        self._sizes: dict[str, str] = {}
        self._transposed: dict[tuple[str, Order], str] = {}
        # Holds the arrays too, because the id() of a freed array can be reused.
        self._constants: dict[tuple[int, Order], tuple[str, np.ndarray]] = {}

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output, and return the name of the output."""
        return self.nodes_outputs(operator, inputs, 1, **attributes)[0]

    def nodes_outputs(
        self, operator: str, inputs: Sequence[str], number: int, **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs, and return their names."""
        name = self._unique(f"{self.scope}/{operator}" if self.scope else operator)
        outputs = [name] if number == 1 else [f"{name}:{i}" for i in range(number)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs

    def constant(
        self, array: np.ndarray, label: str | None = None, order: Order | None = None
    ) -> str:
        """Return the name of a constant tensor.

        Args:
            array: Its values. The same array in the same order gives the same tensor.
            label: The name, if it is not taken. None names it after the layer.
            order: The axes of the array in the order in which the tensor stores them. None keeps
                their order.
        """
        order = tuple(range(array.ndim)) if order is None else order
        key = (id(array), order)
        if key not in self._constants:
            scope = f"{self.scope}/constant" if self.scope else "constant"
            name = self._unique(label or scope)
            self.constants[name] = array.transpose(order)
            self._constants[key] = name, array
        return self._constants[key][0]

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of a constant int64[n]."""
        key = tuple(values)
        if key not in self._integers:
            name = self._unique("integers/" + ("_".join(map(str, key)) or "none"))
            self.constants[name] = np.asarray(key, np.int64)
            self._integers[key] = name
        return self._integers[key]

    def transposed(self, name: str, axes: Order) -> str:
        """Return the name of a tensor with permuted axes."""
        key = (name, axes)
        if key not in self._transposed:
            self._transposed[key] = self.node("Transpose", [name], perm=axes)
        return self._transposed[key]

    def shape(self, sizes: Sequence[Size]) -> str:
        """Return the name of a tensor int64[n] that contains the sizes, if they are symbolic too.

        Raises:
            UnsupportedError: A size cannot be computed.
        """
        if not any(map(is_symbolic, sizes)):
            return self.integers([int(size) for size in sizes])
        parts = [self.size(size) for size in sizes]
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=0)

    def size(self, size: Size) -> str:
        """Return the name of a tensor int64[1] that contains the size of an axis.

        Raises:
            UnsupportedError: It cannot be computed.
        """
        if not is_symbolic(size):
            return self.integers([int(size)])
        # JAX prints a symbolic size in the syntax in which `jax.export.symbolic_shape` reads it.
        expression = ast.parse(str(size).replace("^", "**"), mode="eval").body
        # The tensor may be used by other layers.
        scope, self.scope = self.scope, "sizes"
        try:
            return self._computed(expression)
        finally:
            self.scope = scope

    def _computed(self, expression: ast.expr) -> str:
        """Return the name of a tensor int64[1] with the value of an expression of sizes."""
        text = ast.unparse(expression)
        if text not in self._sizes:
            self._sizes[text] = self._compute(expression)
        return self._sizes[text]

    def _compute(self, expression: ast.expr) -> str:
        match expression:
            case ast.Constant(value=int(value)):
                return self.integers([value])
            case ast.Name(id=name) if name in self._axis_of:
                axis = self._axis_of[name]
                return self.node("Shape", [self._input_name], start=axis, end=axis + 1)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.node("Neg", [self._computed(operand)])
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
                operands = [self._computed(left), self._computed(right)]
                return self.node(_ARITHMETIC[type(operator)], operands)
            case ast.Call(func=ast.Name(id="floordiv"), args=[left, right]):
                # ONNX rounds the quotients of integers toward zero. Without the remainder, which
                # has the sign of the divisor, they are exact.
                dividend, divisor = self._computed(left), self._computed(right)
                remainder = self.node("Mod", [dividend, divisor])
                return self.node("Div", [self.node("Sub", [dividend, remainder]), divisor])
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in _FUNCTIONS:
                return self.node(_FUNCTIONS[name], list(map(self._computed, arguments)))
        raise UnsupportedError(
            f"the size {ast.unparse(expression)} of an axis cannot be computed from the shape of "
            "the images; give the images a fixed height and width"
        )

    def _unique(self, name: str) -> str:
        """Return the name, with a number if it is taken."""
        candidate, number = name, 1
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate
