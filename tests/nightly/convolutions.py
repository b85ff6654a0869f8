"""All combinations of the cases of `tests/ops/test_convolution.py`.

Run it with ``pytest -q -n 0 tests/nightly/convolutions.py``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.ops import test_convolution
from tests.ops.test_convolution import CHANNELS, KERNELS, PADDINGS, POOLS, SIZES


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", SIZES)
def test_every_convolution(
    size: tuple[int, int], kernel: tuple[int, int, int], padding: Any, channels: int
) -> None:
    test_convolution.test_convolutions(kernel, channels, size, padding)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_every_pooling(
    pool: Callable[[jax.Array], jax.Array], size: tuple[int, int], dtype: Any
) -> None:
    test_convolution.test_the_gradient_of_equal_maxima_goes_to_the_first(pool, size, dtype)
