"""An order for computations that do not depend on each other.

XLA's CPU backend drops optimization barriers before its last passes.  It keeps arithmetic, even the
addition of zero, so a dependency is expressed as the addition of a zero that has to be computed.
"""

import jax
import jax.numpy as jnp

from resnet_jax.ops.gradients import custom_gradient


def after(x: jax.Array, other: jax.Array) -> jax.Array:
    """Return ``x`` unchanged, each example computed after the same example of ``other``.

    Args:
        x: float[B, ...].
        other: float[B, ...].  Where its first value is NaN, the example of x becomes NaN too.
    """
    first = other.reshape(other.shape[0], -1)[:, :1]
    # Zero, also for infinities; NaN for NaN.
    zero = jnp.minimum(jnp.abs(first), 0).reshape(-1, *(1,) * (x.ndim - 1))
    return x + zero.astype(x.dtype)


def _forward(x: jax.Array, other: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
    return (x, other), None


def _backward(_: None, gradients: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    of_x, of_other = gradients
    return after(of_x, of_other), of_other


@custom_gradient(_forward, _backward)
def together(x: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both arrays unchanged; the gradient of x is computed after the gradient of ``other``.

    A ResNet-50 training step on 8 devices has 99 all-reduces with this and 100 without (2 cores of
    an AMD EPYC (Zen 4, AVX-512), jax 0.10.2, 2026-11-28).

    XLA merges all-reduces only if they are neighbors in its order, which follows the names of the
    parameters.  Without this, the all-reduce of a branch that is named later waits until the other
    branch is done.

    Args:
        x: float[B, ...].
        other: float[B, ...].
    """
    return x, other
