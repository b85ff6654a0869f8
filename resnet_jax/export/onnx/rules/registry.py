"""The table of translations, from primitives of JAX to nodes of ONNX.

A translation takes the graph, the equation of the traced function, and the values of its operands.
It adds nodes to the graph, and returns the value of each result.
"""

from collections.abc import Callable
from typing import Any

from resnet_jax.export.onnx.values import Value

Equation = Any
"""A `jax.extend.core.JaxprEqn`."""

Translation = Callable[..., Value | list[Value]]
"""Takes (graph, equation, *operands)."""

TRANSLATIONS: dict[str, Translation] = {}
"""The translation of each primitive, by its name."""


def translates(*primitives: str) -> Callable[[Translation], Translation]:
    """Return a decorator that registers the translation of some primitives."""

    def register(translation: Translation) -> Translation:
        for primitive in primitives:
            TRANSLATIONS[primitive] = translation
        return translation

    return register


def result_of(equation: Equation) -> Any:
    """Return the shape and dtype of the only result of an equation."""
    [variable] = equation.outvars
    return variable.aval
