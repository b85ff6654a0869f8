"""Batches of images in files: read, decoded and cropped by threads or processes, through Grain."""

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial

import grain
import jax
import numpy as np

from resnet_jax.config import ImageConfig
from resnet_jax.data.batches import Batch, epoch_order
from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.decode import DecodeError, random_resized_crop, resized_center_crop
from resnet_jax.data.images.source import ImageSource

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSplit:
    """A split of encoded images and how the host prepares them.

    Attributes:
        source: the images.
        config: sizes, crops, threads, and what to do with damaged files.
        unreadable: of the files that were skipped, names and reasons; it grows as batches are made.
    """

    source: ImageSource
    config: ImageConfig
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what the batches hold."""
        return self.config.image_size, self.config.image_size, 3

    @property
    def labels(self) -> np.ndarray:
        """int32[N]."""
        return np.asarray(self.source.labels, np.int32)

    @property
    def fingerprint(self) -> str:
        """Of the source."""
        return self.source.fingerprint

    @property
    def resident(self) -> tuple[()]:
        """None: batches carry all."""
        return ()

    @property
    def example(self) -> Batch[jax.ShapeDtypeStruct]:
        """An image, its label and whether it counts."""
        return Batch(
            jax.ShapeDtypeStruct(self.image_shape, np.uint8),
            jax.ShapeDtypeStruct((), np.int32),
            jax.ShapeDtypeStruct((), bool),
        )

    def image(self, index: int) -> np.ndarray:
        """uint8[H, W, 3], as evaluation gets it."""
        return _EvaluationExamples(self.source, self.config).load(index)[0]

    def fetch(self, resident: tuple[()], drawn: Batch[jax.Array]) -> Batch[jax.Array]:
        """The batch itself."""
        del resident
        return drawn

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        start_step: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Batch[np.ndarray]]:
        """Endless shuffled batches from a step on.

        Order and crops are functions of seed and position alone: of neither threads, workers nor
        processes, and starting late costs nothing.

        Args:
            batch_size: of the global batch.
            seed: decides order and crops.
            start_step: number of batches to skip.
            process_index: which part of each batch to make.
            process_count: number of parts; it divides the batch.

        Raises:
            DataError: an image cannot be read and ``on_unreadable`` is ``"fail"``.
        """
        local = batch_size // process_count
        load = partial(_TrainExamples(self.source, self.config, seed).load)

        def positions(index: int) -> int:
            step, offset = divmod(index, local)
            return (start_step + step) * batch_size + process_index * local + offset

        # Longer than any run; Grain knows no endless sources.
        examples = grain.MapDataset.range(2**40 // batch_size * local).map(positions).map(load)
        return self._iterate(examples, local)

    def eval_batches(
        self, batch_size: int, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Batch[np.ndarray]]:
        """The whole split in order, every example once, the last batch padded to full size.

        All processes make equally many batches.
        """
        local = batch_size // process_count
        steps = -(-len(self) // batch_size)
        load = _EvaluationExamples(self.source, self.config).load

        def positions(index: int) -> int:
            step, offset = divmod(index, local)
            return step * batch_size + process_index * local + offset

        examples = grain.MapDataset.range(steps * local).map(positions).map(load)
        return self._iterate(examples, local)

    def _iterate(self, examples: grain.MapDataset, batch_size: int) -> Iterator[Batch[np.ndarray]]:
        threads = self.config.threads or os.cpu_count() or 1
        if self.config.workers:
            # Workers take turns, so what they make must be whole batches.
            _mark_flags_as_parsed()
            dataset = (
                examples.batch(batch_size, batch_fn=_collate)
                .to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=threads))
                .mp_prefetch(
                    grain.MultiprocessingOptions(num_workers=self.config.workers),
                    worker_init_fn=_end_with_parent,
                )
            )
        else:
            dataset = examples.to_iter_dataset(
                grain.ReadOptions(threads, prefetch_buffer_size=2 * batch_size)
            ).batch(batch_size, batch_fn=_collate)
        iterator = iter(dataset)
        try:
            for batch, problems in iterator:
                for name, reason in problems:
                    if name not in self.unreadable:
                        _logger.warning("skipped %s: %s", name, reason)
                    self.unreadable[name] = reason
                yield batch
        finally:
            iterator.close()


Example = tuple[np.ndarray, int, bool, tuple[str, str] | None]
"""Pixels, label, whether it counts, and name and reason of what was skipped."""


@dataclasses.dataclass(frozen=True)
class _TrainExamples:
    source: ImageSource
    config: ImageConfig
    seed: int

    def load(self, position: int) -> Example:
        epoch, offset = divmod(position, len(self.source))
        order = epoch_order(len(self.source), self.seed, epoch)
        index = int(order[offset // self.config.repeats])
        problem = None
        # Skipped images are replaced by those that follow in the data set.
        for _ in range(len(self.source)):
            record = self.source[index]
            rng = np.random.default_rng((self.seed, position, 1))
            try:
                pixels = random_resized_crop(
                    record.image,
                    self.config.image_size,
                    rng,
                    scale=self.config.crop_scale,
                    ratio=self.config.crop_ratio,
                    interpolation=self.config.train_interpolation,
                )
            except DecodeError as error:
                problem = problem or (record.name, str(error))
                if self.config.on_unreadable == "fail":
                    raise _unreadable(record.name, error) from None
                index = (index + 1) % len(self.source)
            else:
                return pixels, record.label, True, problem
        raise DataError(f"none of the {len(self.source)} images can be decoded, such as {problem}")


@dataclasses.dataclass(frozen=True)
class _EvaluationExamples:
    source: ImageSource
    config: ImageConfig

    def load(self, position: int) -> Example:
        size = self.config.image_size
        nothing = np.zeros((size, size, 3), np.uint8)
        if position >= len(self.source):
            return nothing, 0, False, None
        record = self.source[position]
        try:
            pixels = resized_center_crop(
                record.image,
                size,
                crop_fraction=self.config.crop_fraction,
                interpolation=self.config.eval_interpolation,
            )
        except DecodeError as error:
            if self.config.on_unreadable == "fail":
                raise _unreadable(record.name, error) from None
            return nothing, 0, False, (record.name, str(error))
        return pixels, record.label, True, None


def _unreadable(name: str, error: DecodeError) -> DataError:
    return DataError(
        f"{name}: {error}; mend or remove it, or set data.images.on_unreadable to skip"
    )


def _collate(
    examples: Sequence[Example],
) -> tuple[Batch[np.ndarray], list[tuple[str, str]]]:
    images, labels, valid, problems = zip(*examples, strict=True)
    batch = Batch(np.stack(images), np.asarray(labels, np.int32), np.asarray(valid))
    return batch, [problem for problem in problems if problem]


def _mark_flags_as_parsed() -> None:
    """Grain's workers read flags of absl, which only absl's own programs parse."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _end_with_parent(worker_index: int, worker_count: int) -> None:
    """Ends a worker whose parent is gone: nobody else does after SIGKILL."""
    del worker_index, worker_count
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
