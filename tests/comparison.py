"""Measures of the difference between two results."""

import jax
import numpy as np
from jax.typing import ArrayLike


def deviation(actual: ArrayLike, expected: ArrayLike) -> float:
    """Return the maximum absolute difference divided by the maximum expected magnitude."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def tree_deviation(actual: object, expected: object) -> float:
    """Return the largest `deviation` of any leaf. Zero leaves must agree exactly."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    deviations = [0.0]
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if np.any(np.asarray(theirs)):
            deviations.append(deviation(ours, theirs))
        else:
            assert not np.any(np.asarray(ours))
    return max(deviations)
