"""Batches of image files, which threads or processes read, decode and crop through Grain."""

import dataclasses
import functools
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import grain
import jax
import numpy as np

from resnet_jax.config import ImageConfig
from resnet_jax.config.sampling import SamplingConfig
from resnet_jax.data.batches import Batch, Indexed
from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.cores import usable_cores
from resnet_jax.data.images.crop import Draws, evaluation_image, random_resized_crop
from resnet_jax.data.images.decode import DecodeError
from resnet_jax.data.images.source import ImageSource, Record, UnreadableError, labelled
from resnet_jax.data.sampling import Sampling, first_flips

_logger = logging.getLogger(__name__)

# Number of examples that a thread makes in one task. This makes the cost of Grain for each task
# negligible.
_PIECE = 16


Example = tuple[int, bool, tuple[str, str] | None, int]
"""Label, whether the example counts, the name of a skipped image with the reason, and the position
of the image in the split."""

Drawn = Batch[np.ndarray] | Indexed[np.ndarray]
"""What the iterators of a split yield."""

Load = Callable[[range, np.ndarray], list[Example]]
"""Function that writes the images of N positions in the run to uint8[N, H, W, 3]."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSplit:
    """A split of encoded images and how the host prepares them.

    Attributes:
        source: The encoded images.
        config: Sizes, crops, threads, and what to do with damaged files.
        unreadable: Names of the skipped files, with the reason for each. It grows while batches are
            made.
        sampling_config: Which examples an epoch of training visits.
        indexed: Whether the iterators yield `Indexed` batches.
    """

    source: ImageSource
    config: ImageConfig
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    sampling_config: SamplingConfig = SamplingConfig()
    indexed: bool = False

    def __len__(self) -> int:
        return len(self.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images in a batch."""
        return self.config.image_size, self.config.image_size, 3

    @property
    def labels(self) -> np.ndarray:
        """Labels of all images, int32[N]; see `Split.labels`."""
        return np.asarray(self.source.labels, np.int32)

    @functools.cached_property
    def sampling(self) -> Sampling:
        """The order in which training visits the examples."""
        uniform = self.sampling_config.classes == "uniform"
        return Sampling(self.sampling_config, len(self), None if uniform else self.labels)

    @property
    def epoch_size(self) -> int:
        """Number of examples in an epoch of training; see `Split.epoch_size`."""
        return self.sampling.epoch_size

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the source."""
        return self.source.fingerprint

    @property
    def resident(self) -> tuple[()]:
        """An empty tuple, because batches contain the images themselves."""
        return ()

    @property
    def example(self) -> Batch[jax.ShapeDtypeStruct] | Indexed[jax.ShapeDtypeStruct]:
        """An image, its label and whether it counts, and its position if ``indexed``."""
        number = jax.ShapeDtypeStruct((), np.int32)
        batch = Batch(
            jax.ShapeDtypeStruct(self.image_shape, np.uint8),
            number,
            jax.ShapeDtypeStruct((), bool),
        )
        return Indexed(batch, number) if self.indexed else batch

    def with_index(self) -> Self:
        """Return the split with `Indexed` batches; see `Split.with_index`."""
        return dataclasses.replace(self, indexed=True)

    def image(self, index: int) -> np.ndarray:
        """Return an image as evaluation uses it, uint8[H, W, 3]; black if it was skipped."""
        images = np.empty((1, *self.image_shape), np.uint8)
        _EvaluationExamples(self.source, self.config)(range(index, index + 1), images)
        return images[0]

    def name(self, index: int) -> str:
        """Return the name of an image in its source."""
        return self.source.name(index)

    def fetch(
        self, resident: tuple[()], drawn: Batch[jax.Array] | Indexed[jax.Array]
    ) -> Batch[jax.Array]:
        """Return the batch itself."""
        del resident
        return drawn.batch if isinstance(drawn, Indexed) else drawn

    def resized(self, size: int) -> Self:
        """Return the same images, cropped to another height and width; see `Split.resized`."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, image_size=size))

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        start_step: int,
        offset: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Drawn]:
        """Iterate over shuffled batches without end; see `Split.train_batches`.

        Order and crops depend only on the seed and the position in the run. They do not depend on
        the number of threads, workers or processes.

        Args:
            batch_size: Number of examples in the global batch.
            seed: Seed of the order and the crops.
            start_step: Number of batches to skip, which costs nothing.
            offset: Number of examples before the first batch; see `Split.train_batches`.
            process_index: Which part of each batch to make.
            process_count: Number of parts. It divides the batch size.

        Raises:
            DataError: An image cannot be read and ``on_unreadable`` is ``"fail"``, a label is not
                the index of a class, or a worker was killed.
        """
        # Grain has no endless sources, so this one is longer than any run.
        steps = 2**40 // batch_size
        size = batch_size // process_count
        first = offset + start_step * batch_size + process_index * size
        load = _TrainExamples(self.source, self.config, self.sampling, seed)
        return self._iterate(_Batches(load, first, batch_size, (size, *self.image_shape)), steps)

    def eval_batches(
        self, batch_size: int, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Drawn]:
        """Iterate over the whole split in order; see `Split.eval_batches`.

        The mask is False for padding and for images that were skipped.
        """
        steps = -(-len(self) // batch_size)
        size = batch_size // process_count
        load = _EvaluationExamples(self.source, self.config)
        return self._iterate(
            _Batches(load, process_index * size, batch_size, (size, *self.image_shape)), steps
        )

    def _iterate(self, batches: "_Batches", steps: int) -> Iterator[Drawn]:
        threads = self.config.threads or usable_cores()
        pieces = grain.MapDataset.range(steps * batches.pieces).map(batches.make)
        if self.config.workers:
            # Grain takes items from the workers in turn, so each item must be a whole batch.
            _mark_flags_as_parsed()
            dataset = (
                pieces.batch(batches.pieces, batch_fn=batches.join)
                .to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=threads))
                .mp_prefetch(
                    grain.MultiprocessingOptions(num_workers=self.config.workers),
                    worker_init_fn=_end_with_parent,
                )
            )
        else:
            dataset = pieces.to_iter_dataset(
                grain.ReadOptions(threads, prefetch_buffer_size=max(threads, 2 * batches.pieces))
            ).batch(batches.pieces, batch_fn=batches.join)
        iterator = iter(dataset)
        try:
            for batch, index, problems in iterator:
                for name, reason in problems:
                    if name not in self.unreadable:
                        _logger.warning("skipped %s: %s", name, reason)
                    self.unreadable[name] = reason
                yield Indexed(batch, index) if self.indexed else batch
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise DataError(
                "a loading process was killed, often for want of memory; use fewer "
                "data.images.workers or a smaller batch_size"
            ) from None
        finally:
            iterator.close()


@dataclasses.dataclass(frozen=True, eq=False)
class _Batches:
    """Batches made of pieces. Threads write pieces directly into the batch, without a copy.

    Attributes:
        load: Function that makes the examples.
        first: Position of the first example in the run.
        stride: Distance between the first examples of consecutive batches.
        shape: Shape of the images of a batch.
        begun: Images of incomplete batches, by step.
    """

    load: Load
    first: int
    stride: int
    shape: tuple[int, int, int, int]
    begun: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def pieces(self) -> int:
        """Number of pieces of each batch."""
        return -(-self.shape[0] // _PIECE)

    def make(self, index: int) -> tuple[int, list[Example]]:
        """Make one piece, and return its step and its examples without pixels."""
        step, piece = divmod(index, self.pieces)
        start, stop = (i * self.shape[0] // self.pieces for i in (piece, piece + 1))
        images = self.begun.get(step)
        if images is None:
            # If two threads arrive at once, both use the array of the first.
            images = self.begun.setdefault(step, np.empty(self.shape, np.uint8))
        first = self.first + step * self.stride
        return step, self.load(range(first + start, first + stop), images[start:stop])

    def join(
        self, pieces: Sequence[tuple[int, list[Example]]]
    ) -> tuple[Batch[np.ndarray], np.ndarray, list[tuple[str, str]]]:
        """Return a batch, its positions, and the names of skipped images with their reasons."""
        labels, valid, problems, index = zip(
            *itertools.chain.from_iterable(examples for _, examples in pieces), strict=True
        )
        images = self.begun.pop(pieces[0][0])
        batch = Batch(images, np.asarray(labels, np.int32), np.asarray(valid))
        skipped = [problem for problem in problems if problem]
        return batch, np.asarray(index, np.int32), skipped


@dataclasses.dataclass(frozen=True)
class _TrainExamples:
    source: ImageSource
    config: ImageConfig
    sampling: Sampling
    seed: int

    def __call__(self, positions: range, images: np.ndarray) -> list[Example]:
        # Each position has its own ten blocks of four numbers in one endless random sequence.
        bits = np.random.Philox(key=self.seed, counter=10 * positions.start)
        draws = np.random.Generator(bits).random((len(positions), 10, 4)).tolist()
        return list(map(self._load, positions, draws, images))

    def _load(self, position: int, draws: Draws, out: np.ndarray) -> Example:
        epoch, offset = divmod(position, self.sampling.epoch_size)
        index = int(self.sampling.epoch(self.seed, epoch)[offset // self.config.repeats])
        mirrored, problem = self._mirrored(index, epoch), None

        def crop(image: bytes) -> None:
            random_resized_crop(
                image,
                out,
                draws,
                scale=self.config.crop_scale,
                ratio=self.config.crop_ratio,
                interpolation=self.config.train_interpolation,
                max_pixels=self.config.max_pixels,
            )
            if mirrored:
                out[:] = out[:, ::-1].copy()

        # A skipped image is replaced by the next one in the data set.
        for _ in range(len(self.source)):
            try:
                return _use(self.source, index, crop).label, True, problem, index
            except UnreadableError as error:
                if self.config.on_unreadable == "fail":
                    raise _fatal(error) from None
                problem = problem or (error.name, error.reason)
                index = (index + 1) % len(self.source)
        raise DataError(f"none of the {len(self.source)} images can be decoded, such as {problem}")

    def _mirrored(self, index: int, epoch: int) -> bool:
        """Return whether the host mirrors an image."""
        augment = self.config.augment
        if augment.flip_mode == "random":
            return False
        first = first_flips(len(self.source), self.seed, augment.flip)[index]
        return bool(first) != (epoch % 2 == 1)


@dataclasses.dataclass(frozen=True)
class _EvaluationExamples:
    source: ImageSource
    config: ImageConfig

    def __call__(self, positions: range, images: np.ndarray) -> list[Example]:
        return list(map(self._load, positions, images))

    def _load(self, position: int, out: np.ndarray) -> Example:
        out[:] = 0
        if position >= len(self.source):
            return 0, False, None, 0

        def crop(image: bytes) -> None:
            out[:] = evaluation_image(
                image,
                image_size=self.config.image_size,
                crop_fraction=self.config.crop_fraction,
                interpolation=self.config.eval_interpolation,
                crop_mode=self.config.crop_mode,
                fill=self.config.augment.mean_color,
                max_pixels=self.config.max_pixels,
            )

        try:
            return _use(self.source, position, crop).label, True, None, position
        except UnreadableError as error:
            if self.config.on_unreadable == "fail":
                raise _fatal(error) from None
            return 0, False, (error.name, error.reason), position


def _use(source: ImageSource, index: int, crop: Callable[[bytes], None]) -> Record:
    """Crop an image, and return its record, whose label is the index of a class."""
    record = labelled(source, index)
    try:
        crop(record.image)
    except DecodeError as error:
        raise UnreadableError(record.name, str(error)) from None
    return record


def _fatal(error: UnreadableError) -> DataError:
    """Return the error that ends the run."""
    return DataError(f"{error}; repair or remove it, or set data.images.on_unreadable to skip")


def _mark_flags_as_parsed() -> None:
    """Mark the flags of absl as parsed: Grain's workers read them, and nothing here parses them."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _end_with_parent(worker_index: int, worker_count: int) -> None:
    """End a worker when its parent ends. After SIGKILL nothing else would end it."""
    del worker_index, worker_count
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
