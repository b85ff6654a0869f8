"""The type in which sums are computed."""

from typing import Any

import jax.numpy as jnp


def accumulation_type(dtype: Any) -> Any:
    """Return float64 for float64, and float32 for all other floating-point types.

    `jnp.promote_types` would refuse to answer under ``jax_numpy_dtype_promotion="strict"``.
    """
    return jnp.float64 if dtype == jnp.float64 else jnp.float32
