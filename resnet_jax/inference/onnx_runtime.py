"""Inference with onnxruntime: ONNX files, and the forward pass of a classifier.

On CPUs, onnxruntime computes most networks faster than XLA does; docs/export.md has the ratios.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.export
import numpy as np

from resnet_jax.inference.fold import fold_batch_norm
from resnet_jax.inference.stream import Outputs
from resnet_jax.models import ResNet, unstack_blocks


class Forward(Protocol):
    """The forward pass of a classifier, see `Classifier.forward`."""

    def __call__(
        self, variables: Any, images: np.ndarray, *, logits: bool, features: bool
    ) -> Outputs:
        """Return what is asked for of images uint8[B, H, W, C]."""
        ...


class OnnxModel:
    """An ONNX model of images, which onnxruntime runs on the CPU.

    Several threads can call it at the same time.

    Attributes:
        input_shape: Shape of the images, [B, H, W, C]. Sizes that the model leaves open are None.
        input_dtype: Type of the images.
        output_names: Names of the outputs.
        metadata: What the model says about itself, such as class names and preprocessing. Entries
            that are JSON text have their values.

    Args:
        model: The path of the file, or its content.
        threads: Number of threads. None uses one for each core.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: onnxruntime cannot read the model, or it has more than one input.
        ImportError: onnxruntime is not installed.
    """

    def __init__(
        self, model: str | os.PathLike[str] | bytes, *, threads: int | None = None
    ) -> None:
        runtime = _onnxruntime()
        name = "the model" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes) and not Path(model).exists():
            raise FileNotFoundError(f"{name}: there is no such file")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        try:
            self._session = runtime.InferenceSession(
                model if isinstance(model, bytes) else name,
                options,
                providers=["CPUExecutionProvider"],
            )
            [images] = self._session.get_inputs()
        except Exception as error:
            # onnxruntime has errors of many types, whose messages have several lines.
            reason = str(error).splitlines()[0]
            raise ValueError(f"{name}: onnxruntime cannot use it: {reason}") from None
        self._input_name = images.name
        self.input_shape = tuple(size if isinstance(size, int) else None for size in images.shape)
        self.input_dtype = np.dtype({"tensor(uint8)": "uint8"}.get(images.type, "float32"))
        self.output_names = tuple(output.name for output in self._session.get_outputs())
        properties = self._session.get_modelmeta().custom_metadata_map
        self.metadata = {key: _json_or_text(text) for key, text in properties.items()}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the first output, such as the probabilities float32[B, K].

        Args:
            images: [B, H, W, C] of the type ``input_dtype``.
        """
        return self.outputs(images, *self.output_names[:1])[self.output_names[0]]

    def outputs(self, images: np.ndarray, *names: str) -> dict[str, np.ndarray]:
        """Return outputs by their names, by default all of them.

        Args:
            images: As in `__call__`.
            *names: Names of outputs.
        """
        names = names or self.output_names
        arrays = self._session.run(list(names), {self._input_name: np.asarray(images)})
        return dict(zip(names, arrays, strict=True))


def compile_forward(
    model: ResNet,
    variables: Mapping[str, Any],
    prepare: Callable[[jax.Array], jax.Array],
    image_shape: tuple[int, int, int],
) -> Forward:
    """Return the forward pass of a classifier, computed by onnxruntime.

    BatchNorm is folded into the convolutions where that is possible. The network computes in
    float32. The results are equal to those of JAX up to rounding.

    Args:
        model: The network.
        variables: Its variables.
        prepare: Normalizes images, as `Preprocessing.on_device` does.
        image_shape: Height, width and channels of the images.

    Returns:
        A function whose first argument is ignored, because the variables are part of the program.

    Raises:
        UnsupportedError: The network has a part that cannot be translated to ONNX.
        ImportError: onnx or onnxruntime is not installed.
    """
    _onnxruntime()
    from resnet_jax.export.onnx.writing import needs_two_files, save_model, to_onnx

    model = model.clone(dtype=np.float32)
    # Networks with another normalization, or with BatchNorm elsewhere, are refused.
    with contextlib.suppress(ValueError):
        model, variables = fold_batch_norm(model, variables)
    model, variables = model.clone(scan=False, remat=False), unstack_blocks(variables)

    def function(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        maps = model.apply(variables, prepare(images), train=False, method="features")

        def head(**options: Any) -> Any:
            return model.apply(variables, maps, method="forward_head", **options)

        features = {"features": head(pre_logits=True)}
        return features | {"logits": head()} if model.num_classes else features

    shape = jax.export.symbolic_shape(f"batch, {', '.join(map(str, image_shape))}")
    proto = to_onnx(function, (variables, jax.ShapeDtypeStruct(shape, np.uint8)))
    if needs_two_files(proto):
        with tempfile.TemporaryDirectory() as directory:
            save_model(proto, Path(directory) / "model.onnx")
            program = OnnxModel(Path(directory) / "model.onnx")
    else:
        program = OnnxModel(proto.SerializeToString())

    def forward(variables: Any, images: np.ndarray, *, logits: bool, features: bool) -> Outputs:
        del variables
        wanted = [name for name, asked in (("logits", logits), ("features", features)) if asked]
        outputs: dict[str, Any] = program.outputs(images, *wanted) if wanted else {}
        return Outputs(outputs.get("logits"), outputs.get("features"))

    return forward


def _onnxruntime() -> Any:
    """Return the module `onnxruntime`.

    Raises:
        ImportError: It is not installed. The message is one line that names the extra.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f"backend 'onnxruntime' needs the packages onnx and onnxruntime ({error}): "
            "pip install 'resnet-linen[export]'",
            name="onnxruntime",
        ) from None
    return onnxruntime


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
