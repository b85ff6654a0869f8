"""Weight-only int8: a program whose kernels are stored as int8 and multiplied by their scales.

The weights of the file are a quarter as large. The program computes with float32, so it needs no
images for calibration, and it is not faster.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.export.program import Program
from resnet_jax.weights.formats.int8 import quantize

_INTEGERS, _SCALE = "int8", "scale"


def quantize_program(program: Program) -> Program:
    """Return a program that computes the same with kernels of int8.

    Args:
        program: A program with float32 variables. Fold BatchNorm first: it changes the kernels.

    Returns:
        A program whose variables have ``{"int8": ..., "scale": ...}`` in place of each ``kernel``.
    """

    def function(variables: Any, images: jax.Array) -> jax.Array:
        return program.function(dequantized_variables(variables), images)

    return dataclasses.replace(
        program, function=function, variables=quantized_variables(program.variables)
    )


def quantized_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return variables with every leaf named ``kernel`` as int8 with scales of output channels.

    Args:
        variables: Nested dictionaries of float32 arrays, without stacked blocks. The output
            channels of a kernel are its last axis.
    """
    result: dict[str, Any] = {}
    for name, value in variables.items():
        if isinstance(value, Mapping):
            result[name] = quantized_variables(value)
        elif name == "kernel":
            integers, scale = quantize(np.asarray(value), -1)
            result[name] = {_INTEGERS: integers, _SCALE: scale}
        else:
            result[name] = value
    return result


def dequantized_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return variables with float32 kernels; jittable. The inverse up to rounding."""
    return {
        name: value
        if not isinstance(value, Mapping)
        else value[_INTEGERS].astype(jnp.float32) * value[_SCALE]
        if value.keys() == {_INTEGERS, _SCALE}
        else dequantized_variables(value)
        for name, value in variables.items()
    }
