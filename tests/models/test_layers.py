"""Details of layers in which implementations of the same network often differ."""

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models.layers import conv, max_pool
from resnet_jax.models.normalization import BatchNorm
from resnet_jax.models.shortcuts import PadShortcut


def test_strided_convolution_pads_symmetrically() -> None:
    # For an input of 4 pixels, a 3x3 kernel, stride 2 and padding 1, windows start at -1 and 1.
    # With `SAME` they would start at 0 and 2.
    image = jnp.arange(4.0)[None, None, :, None] * jnp.ones((1, 4, 1, 1))
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 0].set(1.0)
    y = conv(1, 3, 2).apply({"params": {"kernel": kernel}}, image)
    np.testing.assert_array_equal(y[0, 0, :, 0], [0.0, 1.0])


def test_max_pool_ignores_its_padding() -> None:
    pooled = max_pool(-jnp.ones((1, 4, 4, 1)))
    np.testing.assert_array_equal(pooled, -np.ones((1, 2, 2, 1)))


def test_pad_shortcut_subsamples_and_adds_zero_channels_at_both_ends() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    shortcut = PadShortcut(8, 2, dilation=1, preactivation=False, conv=conv, norm=BatchNorm)
    y = shortcut.apply({}, x, train=True)
    assert y.shape == (2, 3, 3, 8)
    np.testing.assert_array_equal(y[..., 2:5], x[:, ::2, ::2])
    assert not y[..., :2].any()
    assert not y[..., 5:].any()


def test_batch_norm_keeps_its_decay_of_the_running_statistics() -> None:
    x = 3 * jax.random.normal(jax.random.key(0), (8, 4, 4, 5)) + 1
    norm = BatchNorm(momentum=0.9, epsilon=1e-5)
    variables = norm.init(jax.random.key(1), x, train=False)
    y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)
    np.testing.assert_allclose(y, (x - mean) / jnp.sqrt(var + 1e-5), atol=1e-5)


def test_batch_norm_statistics_are_float32_under_bfloat16() -> None:
    x = jnp.full((4, 2, 2, 1), 1000.0, jnp.bfloat16).at[0].set(1004)
    norm = BatchNorm(momentum=0.0, dtype=jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x, train=False)
    _, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    # In bfloat16, the mean would be rounded to 1000.
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [1001.0])
    np.testing.assert_allclose(updated["batch_stats"]["var"], [3.0], rtol=0.05)
