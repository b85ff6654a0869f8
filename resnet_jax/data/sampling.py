"""The order in which training visits the examples of a split."""

import dataclasses
import functools

import numpy as np

from resnet_jax.config import SamplingConfig
from resnet_jax.data.batches import epoch_order
from resnet_jax.data.dataset import DataError

# Share of a class with n examples, before all shares are divided by their sum: n to this power.
_POWERS = {"balanced": 0.0, "square_root": 0.5}


@dataclasses.dataclass(frozen=True, eq=False)
class Sampling:
    """The examples that each epoch visits, as a function of seed and epoch alone.

    Attributes:
        config: How they are drawn.
        num_examples: Number of examples of the split, N.
        labels: int32[N]. It may be None if all classes are drawn alike.

    Raises:
        DataError: An epoch would have no examples.
    """

    config: SamplingConfig
    num_examples: int
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.config.epoch_multiple > self.num_examples:
            raise DataError(
                f"data.sampling.epoch_multiple is {self.config.epoch_multiple}, but there are only "
                f"{self.num_examples} training images; give a smaller number"
            )

    @property
    def epoch_size(self) -> int:
        """Number of examples that an epoch visits, each as often as it is drawn."""
        return self.num_examples // self.config.epoch_multiple * self.config.epoch_multiple

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """Return the examples of an epoch in their order, int64[epoch_size], read-only."""
        if self.config.classes == "uniform":
            return epoch_order(self.num_examples, seed, epoch)[: self.epoch_size]
        return _class_order(self, seed, epoch)

    def at(self, seed: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the examples at some positions of a run, and their epochs.

        Args:
            seed: Seed of the order.
            positions: int64[P], rising, counted from the beginning of the run.

        Returns:
            Examples, int64[P], and epochs, int64[P].
        """
        epochs, offsets = np.divmod(positions, self.epoch_size)
        examples = np.empty_like(positions)
        for epoch in range(epochs[0], epochs[-1] + 1):
            inside = epochs == epoch
            examples[inside] = self.epoch(seed, epoch)[offsets[inside]]
        return examples, epochs

    @functools.cached_property
    def classes(self) -> list[tuple[np.ndarray, int]]:
        """The examples of each class, int64[n], and how many examples an epoch draws of it."""
        assert self.labels is not None, "classes can only be sampled by their labels"
        members = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        shares = np.array([len(examples) for examples in members], float)
        shares **= _POWERS[self.config.classes]
        exact = shares / shares.sum() * self.epoch_size
        counts = np.floor(exact).astype(int)
        # What is missing goes to the classes that lost most by rounding.
        missing = self.epoch_size - counts.sum()
        counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
        return list(zip(members, counts.tolist(), strict=True))


@functools.lru_cache(maxsize=4)
def _class_order(sampling: Sampling, seed: int, epoch: int) -> np.ndarray:
    """Return the examples of an epoch in which the classes have shares of their own."""
    rng = np.random.default_rng((seed, epoch))
    drawn = []
    for examples, count in sampling.classes:
        passes, rest = divmod(count, len(examples))
        drawn += [np.tile(examples, passes), rng.permutation(examples)[:rest]]
    order = rng.permutation(np.concatenate(drawn))
    order.flags.writeable = False
    return order


@functools.lru_cache(maxsize=4)
def first_flips(num_examples: int, seed: int, probability: float) -> np.ndarray:
    """Return which examples are mirrored in the first epoch of alternating flips, bool[N]."""
    # `epoch_order` uses the seeds (seed, epoch), which NumPy pads with zeros.
    return np.random.default_rng((seed, 0, 1)).random(num_examples) < probability
