"""Nodes of a graph that can be left out or merged."""

import collections
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx

Nodes = list[onnx.NodeProto]

# Operators with a bias, and the axis of the weights along which the features are.
_BIASED = {"Conv": 0, "Gemm": 1}


def needed_nodes(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> Nodes:
    """Return the nodes that the outputs depend on, in their order."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def with_biases(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray], outputs: Iterable[str]
) -> tuple[Nodes, dict[str, str]]:
    """Let convolutions and matrix products add the bias that follows them.

    Args:
        nodes: Nodes, each of which follows those that it depends on. They are changed.
        constants: The constant tensors. Vectors of biases are added to them.
        outputs: The outputs of the graph.

    Returns:
        The nodes without the additions of biases, and the new names of their outputs.
    """
    uses = collections.Counter(name for node in nodes for name in node.input)
    uses.update(outputs)
    biased = {
        node.output[0]: node
        for node in nodes
        if node.op_type in _BIASED and uses[node.output[0]] == 1
    }
    names: dict[str, str] = {}
    kept = []
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
        if node.op_type == "Add":
            merged = _merge(node, biased, constants)
            if merged is not None:
                names[node.output[0]] = merged
                continue
        kept.append(node)
    return kept, names


def _merge(
    addition: onnx.NodeProto,
    biased: dict[str, onnx.NodeProto],
    constants: dict[str, np.ndarray],
) -> str | None:
    """Give a node the bias that an addition adds, and return its output; None if there is none."""
    for output, other in (tuple(addition.input), tuple(addition.input)[::-1]):
        if output not in biased or other not in constants:
            continue
        node, bias = biased[output], constants[other]
        weights = constants.get(node.input[1])
        axis = 1 if node.op_type == "Conv" else -1
        if (
            weights is None
            or bias.ndim < 2 + (node.op_type == "Conv")
            or bias.size != bias.shape[axis]
            or bias.size != weights.shape[_BIASED[node.op_type]]
        ):
            continue
        vector = f"{other}/vector"
        constants[vector] = bias.reshape(-1)
        node.input.append(vector)
        # A second addition is not a bias.
        return biased.pop(output).output[0]
    return None


def renamed(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Rename tensors in all nodes."""
    for node in nodes:
        for tensors in (node.input, node.output):
            for i, name in enumerate(tensors):
                tensors[i] = names.get(name, name)
