"""The phases of a run, whose training images and batches have different sizes."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple, Self

import jax

from resnet_jax.config import ConfigError, TrainConfig
from resnet_jax.data import Dataset


class Phase(NamedTuple):
    """Consecutive steps with images of one size and batches of one size.

    Attributes:
        image_size: Height and width of the training images in pixels. None leaves the images of
            the data unchanged.
        batch_size: Number of images in the global batch.
        first_step: Number of steps before the phase.
        first_example: Number of examples that these steps take.
    """

    image_size: int | None
    batch_size: int
    first_step: int = 0
    first_example: int = 0


@dataclasses.dataclass(frozen=True)
class Phases:
    """All phases of a run, in order.

    Which examples a step takes follows from the configuration and the number of the step, also
    where the batch size changes: the examples of the run are one sequence, and every step takes the
    next ones.

    Attributes:
        phases: The phases, of which there is at least one.
        num_examples: Number of training examples of one epoch.
    """

    phases: tuple[Phase, ...]
    num_examples: int

    @classmethod
    def create(cls, config: TrainConfig, dataset: Dataset) -> Self:
        """Return the phases of an experiment. Its sizes change at the steps nearest to epochs.

        Raises:
            ConfigError: The training images are not square, or are not larger than the first ones;
                or a size that is listed with a batch size does not occur.
        """
        resizing, num_examples = config.resizing, dataset.train.epoch_size
        if resizing.initial_size is None:
            return cls((Phase(None, config.batch_size),), num_examples)
        height, width, _ = dataset.train_image_shape
        if height != width or height <= resizing.initial_size:
            raise ConfigError(
                f"resizing.initial_size {resizing.initial_size} must be below the height and width "
                f"of square training images, but those of {dataset.name} have {height}x{width} "
                "pixels; lower it, or set it to None"
            )
        batch_sizes = dict(resizing.batch_sizes)
        phases: list[Phase] = []
        for epoch in range(math.ceil(config.epochs)):
            size = resizing.size_at(epoch, height)
            if phases and phases[-1].image_size == size:
                continue
            done = cls(tuple(phases), num_examples)
            first_step = done.steps(epoch) if phases else 0
            if phases and phases[-1].first_step == first_step:
                # The epochs of the size before are shorter than half a batch.
                phases.pop()
            first_example = done.examples(first_step) if phases else 0
            batch_size = batch_sizes.get(size, config.batch_size)
            phases.append(Phase(size, batch_size, first_step, first_example))
        epochs = range(math.ceil(max(config.epochs, resizing.end_epoch)) + 1)
        sizes = dict.fromkeys(resizing.size_at(epoch, height) for epoch in epochs)
        if unknown := batch_sizes.keys() - sizes.keys():
            raise ConfigError(
                f"resizing.batch_sizes lists images of {min(unknown)} pixels, but training images "
                f"have {', '.join(map(str, sizes))} pixels; list one of these sizes"
            )
        return cls(tuple(phases), num_examples)

    @property
    def resize(self) -> bool:
        """Whether any training images have another size than those of the data."""
        return self.phases[0].image_size is not None

    def steps(self, epochs: float) -> int:
        """Return the number of steps nearest to a number of epochs from the beginning."""
        examples = epochs * self.num_examples
        phase = [p for p in self.phases if p is self.phases[0] or p.first_example <= examples][-1]
        return phase.first_step + math.floor(
            (examples - phase.first_example) / phase.batch_size + 0.5
        )

    def end_of(self, epochs: float) -> int:
        """Return the number of the first step after which a number of epochs is complete."""
        examples = epochs * self.num_examples
        phase = [p for p in self.phases if p is self.phases[0] or p.first_example < examples][-1]
        # Rounding must not add a step if the epochs consist of whole steps.
        return phase.first_step + math.ceil(
            (examples - phase.first_example) / phase.batch_size - 1e-6
        )

    def examples(self, step: int) -> int:
        """Return the number of examples that a number of steps take."""
        phase = self.after(step)
        return phase.first_example + (step - phase.first_step) * phase.batch_size

    def after(self, step: int) -> Phase:
        """Return the phase of the step that follows a number of steps."""
        return [p for p in self.phases if p is self.phases[0] or p.first_step <= step][-1]

    def batches(self, dataset: Dataset, *, seed: int, start_step: int) -> Iterator[Any]:
        """Yield the part of each batch that belongs to this process, without end.

        Args:
            dataset: The data.
            seed: Seed of the order.
            start_step: Number of batches to skip, which costs nothing.
        """
        ends = [*(phase.first_step for phase in self.phases[1:]), None]
        for phase, end in zip(self.phases, ends, strict=True):
            if end is not None and end <= start_step:
                continue
            first = max(start_step, phase.first_step)
            before = phase.first_example - phase.first_step * phase.batch_size
            size, split = phase.image_size, dataset.train
            drawn: Any = (split if size is None else split.resized(size)).train_batches(
                phase.batch_size,
                seed=seed,
                start_step=first,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                **({"offset": before} if before else {}),
            )
            with closing(drawn):
                yield from itertools.islice(drawn, None if end is None else end - first)
