"""Translations of JAX's primitives to nodes of ONNX, one module for each kind of primitive."""

from resnet_jax.export.onnx.rules import elementwise as elementwise
from resnet_jax.export.onnx.rules import gathers as gathers
from resnet_jax.export.onnx.rules import products as products
from resnet_jax.export.onnx.rules import reductions as reductions
from resnet_jax.export.onnx.rules import shapes as shapes
from resnet_jax.export.onnx.rules import windows as windows
from resnet_jax.export.onnx.rules.elementwise import ELEMENTWISE as ELEMENTWISE
from resnet_jax.export.onnx.rules.registry import TRANSLATIONS as TRANSLATIONS
