"""Functions that only put computations in order do not change any number."""

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.ops.ordering import after, together


def test_gradients_pass_as_they_are() -> None:
    x, other = jax.random.normal(jax.random.key(0), (2, 4, 3))

    def loss(x: jax.Array, other: jax.Array, *, tied: bool) -> jax.Array:
        if tied:
            x, other = together(x, other)
        return jnp.sum(jnp.sin(x) * jnp.cos(other))

    gradients = (jax.grad(loss, (0, 1))(x, other, tied=tied) for tied in (True, False))
    for ours, plain in zip(*gradients, strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_an_example_is_behind_the_same_one_of_another_shape() -> None:
    x, other = jnp.ones((3, 2)), jnp.full((3, 5, 7), -4.0)
    np.testing.assert_array_equal(after(x, other), x)
    # A NaN in one example shows which other example waits for it: the NaN reaches only that one.
    np.testing.assert_array_equal(
        jnp.isnan(after(x, other.at[1, 0, 0].set(jnp.nan))), [[False] * 2, [True] * 2, [False] * 2]
    )
    assert after(x.astype(jnp.bfloat16), other).dtype == jnp.bfloat16
