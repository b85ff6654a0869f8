"""ONNX models of functions that JAX can trace."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import checker, helper, numpy_helper

from resnet_jax.export.onnx.conversion import convert
from resnet_jax.export.onnx.errors import UnsupportedError
from resnet_jax.export.onnx.graph import Graph, Shape, is_symbolic
from resnet_jax.export.onnx.simplification import needed_nodes, renamed, with_biases
from resnet_jax.export.onnx.values import (
    Value,
    constant,
    expanded,
    identity,
    onnx_type,
    stored,
    tensor,
)
from resnet_jax.ops.platform import formulation

OPSET = 18
"""Default version of the operators. onnxruntime 1.14, OpenVINO 2023.0 and TensorRT 8.6 know it."""

# Protocol buffers are smaller than 2 GiB. What is not constant needs a small part of that.
_LARGEST_FILE = 2**31 - 2**27


def to_onnx(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    metadata: Mapping[str, Any] | None = None,
    opset: int = OPSET,
    input_name: str = "images",
    output_name: str = "probabilities",
) -> onnx.ModelProto:
    """Return the ONNX model of a function that JAX can trace, with its weights.

    What depends on the weights alone is computed now. Convolutions and pooling are those of ONNX,
    and images are transposed once, from [B, H, W, C] to the layout of ONNX.

    Args:
        function: A pure function of arrays, such as ``lambda variables, images: model.apply(
            variables, images, train=False)``. It may also contain its weights.
        arguments: Its arguments. One leaf is a `jax.ShapeDtypeStruct`, which describes the input;
            its sizes may be symbolic, such as ``jax.export.symbolic_shape("batch, 224, 224, 3")``.
            All other leaves are arrays, which become part of the model under their names.
        metadata: What the model should say about itself: strings, and JSON values. Each becomes an
            entry of ``metadata_props``, the latter as JSON text.
        opset: Version of the operators, 18 or later.
        input_name: Name of the input.
        output_name: Name of the output. If the function returns a dictionary, its keys are the
            names.

    Raises:
        UnsupportedError: The function computes something that has no translation to ONNX; the
            message names the primitive of JAX and the layer.
        ValueError: There is not exactly one input, or the version of the operators is unknown.
    """
    newest = onnx.defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        raise ValueError(f"opset must be {OPSET} to {newest}, but it is {opset}")
    leaves = jax.tree_util.tree_leaves_with_path(tuple(arguments))
    inputs = [leaf for _, leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
    if len(inputs) != 1:
        raise ValueError(
            f"one argument must be a jax.ShapeDtypeStruct, which describes the input, but "
            f"{len(inputs)} are"
        )
    [images] = inputs
    try:
        with formulation("convolution"):
            closed, results = jax.make_jaxpr(function, return_shape=True)(*arguments)
    except (ValueError, core.InconclusiveDimensionOperation) as error:
        cause = error.__cause__ or error
        if not isinstance(cause, core.InconclusiveDimensionOperation):
            raise
        raise UnsupportedError(
            "the function needs images of a fixed size, or symbolic sizes with constraints such as "
            f"'height >= 32': {str(cause).splitlines()[0]}"
        ) from None

    names = [
        _label(path, first=0) or output_name
        for path, _ in jax.tree_util.tree_leaves_with_path(results)
    ]
    graph = Graph(input_name, images.shape, names)
    values = [
        tensor(input_name, leaf.shape, leaf.dtype, identity(len(leaf.shape)))
        if isinstance(leaf, jax.ShapeDtypeStruct)
        else constant(np.asarray(leaf), label=_label(path))
        for path, leaf in leaves
    ]
    outputs = convert(graph, closed.jaxpr, closed.consts, values)
    nodes = _finished(graph, outputs, names)

    used = {name for node in nodes for name in node.input}
    proto = helper.make_graph(
        nodes,
        "resnet_jax",
        [_info(input_name, images.dtype, images.shape)],
        [_info(name, value.dtype, value.shape) for name, value in zip(names, outputs, strict=True)],
        [
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            for name, array in graph.constants.items()
            if name in used
        ],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        proto,
        producer_name="resnet_jax",
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
    )
    helper.set_model_props(model, text_of(metadata or {}))
    return model


def write_onnx(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    file: str | os.PathLike[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    opset: int = OPSET,
    input_name: str = "images",
    output_name: str = "probabilities",
    overwrite: bool = False,
) -> None:
    """Write the ONNX model of a function that JAX can trace, after it has been checked.

    The other arguments are those of `to_onnx`.

    Args:
        function: As in `to_onnx`.
        arguments: As in `to_onnx`.
        file: The new file. It is written completely or not at all. Weights of more than 2 GB are
            stored beside it, in a file with ``.data`` added to its name.
        metadata: As in `to_onnx`.
        opset: As in `to_onnx`.
        input_name: As in `to_onnx`.
        output_name: As in `to_onnx`.
        overwrite: Whether to replace a file that exists.

    Raises:
        FileExistsError: The file exists and is not to be replaced.
        UnsupportedError: As in `to_onnx`.
        ValueError: As in `to_onnx`.

    Examples:
        A network that takes bytes and normalizes them itself::

            def classify(variables, images):
                images = normalize(images, mean, std)
                return jax.nn.softmax(model.apply(variables, images, train=False))

            shape = jax.export.symbolic_shape("batch, 224, 224, 3")
            images = jax.ShapeDtypeStruct(shape, np.uint8)
            write_onnx(classify, (variables, images), "resnet50.onnx")
    """
    file = check_new(file, overwrite=overwrite)
    model = to_onnx(
        function,
        arguments,
        metadata=metadata,
        opset=opset,
        input_name=input_name,
        output_name=output_name,
    )
    save_model(model, file)


def check_new(file: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Return the path of a file that is to be written.

    Raises:
        FileExistsError: It exists and is not to be replaced.
        FileNotFoundError: Its directory does not exist.
    """
    file = Path(file)
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file}: its directory does not exist; create it")
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file}: the file exists already; choose another name")
    return file


def save_model(model: onnx.ModelProto, file: Path) -> None:
    """Check a model, and write it to a file completely or not at all.

    Raises:
        onnx.checker.ValidationError: The model is not valid.
    """
    data = f"{file.name}.data"
    directory = Path(tempfile.mkdtemp(prefix=f".{file.name}.", dir=file.parent))
    try:
        onnx.save_model(
            model,
            str(directory / file.name),
            save_as_external_data=needs_two_files(model),
            location=data,
        )
        checker.check_model(str(directory / file.name), full_check=True)
        # The model comes last, because it is of no use without its weights.
        for name in (data, file.name):
            if (directory / name).exists():
                os.replace(directory / name, file.with_name(name))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def needs_two_files(model: onnx.ModelProto) -> bool:
    """Return whether the weights of a model do not fit into the same file as its nodes."""
    sizes = (initializer.ByteSize() for initializer in model.graph.initializer)
    return sum(sizes) > _LARGEST_FILE


def text_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as ONNX stores them: strings, and all other values as JSON text."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in metadata.items()
    }


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata that a model contains, as text."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _finished(graph: Graph, outputs: Sequence[Value], names: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the nodes that compute the outputs, which have their names and their own layout."""
    graph.scope = ""
    computed = []
    for value in outputs:
        value = expanded(graph, value)
        name = stored(graph, value, identity(value.rank))
        produced = {output for node in graph.nodes for output in node.output}
        if name in computed or name not in produced:
            # Inputs, constants and repeated outputs cannot be renamed.
            name = graph.node("Identity", [name])
        computed.append(name)
    nodes = needed_nodes(graph.nodes, computed)
    nodes, merged = with_biases(nodes, graph.constants, computed)
    computed = [merged.get(name, name) for name in computed]
    renamed(nodes, dict(zip(computed, names, strict=True)))
    return nodes


def _info(name: str, dtype: Any, shape: Shape) -> onnx.ValueInfoProto:
    sizes = [str(size) if is_symbolic(size) else int(size) for size in shape]
    return helper.make_tensor_value_info(name, onnx_type(dtype), sizes)


def _label(path: Sequence[Any], first: int = 1) -> str:
    """Return the name of a leaf from its path, without the position of the argument."""
    return "/".join(jax.tree_util.keystr((key,), simple=True) for key in path[first:])
