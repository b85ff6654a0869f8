"""Data types of weight files."""

import jax.numpy as jnp
import numpy as np


def widened(array: np.ndarray) -> np.ndarray:
    """Return the array, converted to float32 if it is float16 or bfloat16."""
    return array.astype(widened_dtype(array.dtype), copy=False)


def widened_dtype(dtype: np.dtype) -> np.dtype:
    """Return float32 for float16 and bfloat16, and any other dtype unchanged."""
    return np.dtype("<f4") if dtype in (np.float16, jnp.bfloat16) else dtype
