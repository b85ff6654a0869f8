"""An order for computations that do not depend on each other.

XLA's CPU backend drops optimization barriers before its last passes.  What one array adds to
another by arithmetic, nothing drops, be it zero.
"""

import jax
import jax.numpy as jnp


def behind(x: jax.Array, other: jax.Array) -> jax.Array:
    """``x``, each example of which is computed behind the same one of ``other``.

    Args:
        x: float[B, ...].
        other: float[B, ...]; where it is not finite, x may become no number either.
    """
    first = other.reshape(len(other), -1)[:, :1]
    # Zero, or not a number where the first one is none.
    zero = jnp.minimum(jnp.abs(first), 0).reshape(-1, *(1,) * (x.ndim - 1))
    return x + zero.astype(x.dtype)


@jax.custom_vjp
def together(x: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both as they are, float[B, ...]; the gradient of x is passed on behind that of ``other``.

    XLA combines only those exchanges between devices that are neighbours in its order, and takes
    the gradients in the order of the parameters' names: without this, those of a branch that is
    named later come when the other branch is done.
    """
    return x, other


def _forward(x: jax.Array, other: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
    return (x, other), None


def _backward(_: None, gradients: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    of_x, of_other = gradients
    return behind(of_x, of_other), of_other


together.defvjp(_forward, _backward)
