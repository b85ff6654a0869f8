"""Hand-written gradients, and the setting that turns them off.

JAX cannot differentiate a function with a hand-written gradient (`jax.custom_vjp`) in forward mode.
`jax.custom_derivatives.linear_call` would allow it, but it can neither be batched by `jax.vmap` nor
be differentiated with respect to its residuals, which `jax.jacfwd` and `jax.hessian` need.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import jax

from resnet_jax.ops.manual_axes import vary_over, varying_axes

_automatic: ContextVar[bool] = ContextVar("automatic_gradients", default=False)

_HINT = (
    "forward-mode differentiation (jax.jvp, jax.jacfwd, jax.linearize, jax.hessian) cannot use the "
    "hand-written gradients of resnet_jax; trace the function within `with "
    "resnet_jax.automatic_gradients():`"
)


@contextmanager
def automatic_gradients() -> Iterator[None]:
    """Let JAX derive every gradient, so that forward-mode differentiation works.

    Values stay the same, and gradients are equal to rounding.  Training is slower and needs more
    memory.  The setting is read while JAX traces: a function that `jax.jit` has already traced does
    not change.
    """
    token = _automatic.set(True)
    try:
        yield
    finally:
        _automatic.reset(token)


def gradients_are_automatic() -> bool:
    """Return whether `automatic_gradients` is in effect."""
    return _automatic.get()


def custom_gradient(
    forward: Callable[..., Any], backward: Callable[..., Any], static: tuple[int, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a function a hand-written gradient.

    Args:
        forward: takes the function's arguments; returns its result and the residuals.
        backward: takes the static arguments, the residuals and the gradient of the result; returns
            the gradient of each argument that is not static.
        static: positions of the arguments that are not arrays.

    Returns:
        The decorator.  The decorated function raises TypeError, with the remedy, if it is
        differentiated in forward mode outside of `jax.jit`.
    """

    def typed_backward(*args: Any) -> Any:
        # The gradient of an argument must vary over the same axes as the argument itself.
        return vary_over(varying_axes(args[len(static) :]), backward(*args))

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        differentiable = jax.custom_vjp(function, nondiff_argnums=static)
        differentiable.defvjp(forward, typed_backward)

        @wraps(function)
        def call(*args: Any) -> Any:
            if gradients_are_automatic():
                return function(*args)
            arrays = [arg for i, arg in enumerate(args) if i not in static]
            axes = varying_axes(arrays)
            args = tuple(arg if i in static else vary_over(axes, arg) for i, arg in enumerate(args))
            try:
                return differentiable(*args)
            except TypeError as error:
                # One such function may contain another, which has already raised the hint.
                if "forward-mode" not in str(error) or str(error) == _HINT:
                    raise
                raise TypeError(_HINT) from error

        return call

    return decorate
