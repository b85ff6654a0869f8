"""Networks as ONNX models, which other programs than Python can run, and their quantization.

`write_onnx` converts any function that JAX can trace.  It knows nothing of networks: it translates
the primitives of JAX that the function consists of.
"""

try:
    import onnx as _onnx  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"ONNX needs the packages onnx and onnxruntime ({error}): "
        "pip install 'resnet-linen[export]'",
        name="onnx",
    ) from None

from resnet_jax.export.onnx.errors import UnsupportedError as UnsupportedError
from resnet_jax.export.onnx.quantization import Quantization as Quantization
from resnet_jax.export.onnx.quantization import quantize_onnx as quantize_onnx
from resnet_jax.export.onnx.writing import OPSET as OPSET
from resnet_jax.export.onnx.writing import to_onnx as to_onnx
from resnet_jax.export.onnx.writing import write_onnx as write_onnx
