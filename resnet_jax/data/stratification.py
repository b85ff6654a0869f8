"""A split that keeps the proportions of the classes, as scikit-learn's `train_test_split` makes it.

Importing scikit-learn takes almost as long as importing JAX, Flax and Optax together, because it
imports most of SciPy.
"""

import numpy as np


def stratified_split(labels: np.ndarray, size: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the examples to keep and of those to hold out, both shuffled.

    They are exactly the indices that scikit-learn 1.9 returns for ``train_test_split(
    np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)``.

    Args:
        labels: int[N], with every class from 0 to the largest one.
        size: Number of examples to hold out.
        seed: Seed of the choice.

    Returns:
        int64[N - size] and int64[size].
    """
    # The legacy generator gives the same numbers in every version of NumPy.
    rng = np.random.RandomState(seed)
    counts = np.bincount(labels)
    num_kept = _shares(counts, len(labels) - size, rng)
    num_held_out = _shares(counts - num_kept, size, rng)
    kept, held_out = [], []
    for label, (first, second) in enumerate(zip(num_kept, num_held_out, strict=True)):
        members = rng.permutation(np.flatnonzero(labels == label))
        kept.append(members[:first])
        held_out.append(members[first : first + second])
    return rng.permutation(np.concatenate(kept)), rng.permutation(np.concatenate(held_out))


def _shares(counts: np.ndarray, total: int, rng: np.random.RandomState) -> np.ndarray:
    """Return how many of a number of examples each class gets, by largest remainder.

    Ties are broken at random.
    """
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    for remainder in np.unique(remainders)[::-1]:
        missing = int(total - shares.sum())
        if not missing:
            break
        (tied,) = np.nonzero(remainders == remainder)
        shares[rng.choice(tied, min(len(tied), missing), replace=False)] += 1
    return shares.astype(int)
