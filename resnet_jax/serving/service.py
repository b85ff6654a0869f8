"""A model with its queues and threads: everything that a server does besides HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from starlette.exceptions import HTTPException

from resnet_jax.data.images.cores import usable_cores
from resnet_jax.serving.batching import Batcher, ModelThread, bucket_sizes
from resnet_jax.serving.images import (
    ImageFile,
    decode,
    decode_for_network,
    draw_heat,
    thumbnail,
)
from resnet_jax.serving.limits import Admission, Limits, busy
from resnet_jax.serving.metrics import Metrics
from resnet_jax.serving.model import Model

Result = TypeVar("Result")


class Explanation(NamedTuple):
    """What speaks for a class in an image.

    Attributes:
        probabilities: float32[K].
        class_index: The class that is explained.
        overlay: JPEG file of the image with the heatmap on top.
    """

    probabilities: np.ndarray
    class_index: int
    overlay: bytes


class _Question(NamedTuple):
    """An image of the network's size, and the class to explain or None for the most probable."""

    pixels: np.ndarray
    target: int | None


class _Heat(NamedTuple):
    """Probabilities float32[K], the explained class, and its heatmap float32[H, W]."""

    probabilities: np.ndarray
    class_index: int
    heat: np.ndarray


class Service:
    """A model that answers many requests at the same time.

    Images are decoded by as many threads as there are cores, and the network runs in one thread.

    Args:
        model: The network.
        limits: What a request may cost.
        max_batch: Largest number of images that the network computes at once.
        max_delay: Longest time in seconds for which an image waits for others, if the network is
            idle.

    Attributes:
        model: The network.
        limits: What a request may cost.
        admission: Count of the images that have not been answered.
        metrics: Counters and histograms.
        ready: Whether all programs are compiled.
    """

    def __init__(self, model: Model, limits: Limits, *, max_batch: int, max_delay: float) -> None:
        self.model, self.limits = model, limits
        self.admission = Admission(limits.waiting)
        self.ready = False
        self.metrics = Metrics(
            waiting=lambda: self.admission.count, ready=lambda: float(self.ready)
        )
        self._sizes = (model.batch_size,) if model.batch_size else bucket_sizes(max_batch)
        self._max_delay = max_delay

    @contextlib.asynccontextmanager
    async def running(
        self, on_ready: Callable[[], None], on_failure: Callable[[Exception], None]
    ) -> AsyncIterator[None]:
        """Run the threads until the block ends. The programs are compiled meanwhile.

        Args:
            on_ready: Called when they are compiled.
            on_failure: Called with the error if they cannot be compiled.
        """
        thread = ModelThread()
        options: dict[str, Any] = {
            "delay": self._max_delay,
            "thread": thread,
            "observe": self.metrics.observe_batch,
        }
        self._predict = Batcher(self._run_network, self._sizes, **options)
        self._explain = Batcher(self._run_explanation, (1,), **options)
        self._decoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")
        tasks = [
            asyncio.create_task(self._compile(thread, on_ready, on_failure)),
            asyncio.create_task(self._predict.serve()),
            asyncio.create_task(self._explain.serve()),
        ]
        try:
            yield
        finally:
            self.ready = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._decoders.shutdown(cancel_futures=True)
            # A program that is being compiled cannot be interrupted.
            await asyncio.to_thread(thread.close)

    def check_ready(self) -> None:
        """Raise `HTTPException` (status 503) until all programs are compiled."""
        if not self.ready:
            raise busy("the network is being compiled")

    async def predict(self, files: Sequence[ImageFile]) -> np.ndarray:
        """Return the probabilities of the classes for some image files, float32[N, K].

        Raises:
            HTTPException: A file is no image that can be read, or is too large.
        """
        to_input = partial(
            decode_for_network, preprocessing=self.model.preprocessing, limits=self.limits
        )
        decoded = await asyncio.gather(
            *(self._decode(partial(to_input, file.data)) for file in files),
            return_exceptions=True,
        )
        pixels = []
        for file, result in zip(files, decoded, strict=True):
            if isinstance(result, HTTPException) and len(files) > 1:
                number = len(pixels) + 1
                name = f" ({file.name})" if file.name else ""
                raise HTTPException(result.status_code, f"image {number}{name}: {result.detail}")
            if isinstance(result, BaseException):
                raise result
            pixels.append(result)
        return await self.probabilities(pixels)

    async def probabilities(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Return the probabilities of the classes, float32[N, K].

        Args:
            pixels: N images of the network's size, uint8[H, W, C].
        """
        rows = await asyncio.gather(*map(self._predict, pixels))
        self.metrics.images.inc(len(rows))
        return np.stack(rows)

    async def explain(self, file: ImageFile, target: int | None) -> Explanation:
        """Return what speaks for a class in an image.

        Args:
            file: The image file.
            target: The class, or None for the most probable one.

        Raises:
            HTTPException: The file is no image that can be read, or is too large.
        """
        preprocessing = self.model.preprocessing

        def prepare() -> tuple[np.ndarray, np.ndarray]:
            pixels = decode(file.data, self.limits)
            return preprocessing.on_host(pixels), thumbnail(pixels)

        pixels, small = await self._decode(prepare)
        probabilities, index, heat = await self._explain(_Question(pixels, target))
        self.metrics.images.inc()
        drawn = await self._decode(partial(draw_heat, small, heat, preprocessing))
        return Explanation(probabilities, index, drawn)

    async def _decode(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function)

    async def _compile(
        self,
        thread: ModelThread,
        on_ready: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Run every program once, then be ready."""
        image = np.zeros(self.model.preprocessing.image_shape, np.uint8)
        try:
            for size in self._sizes:
                await thread(partial(self._run_network, [image], size))
            if self.model.heat:
                await thread(partial(self._run_explanation, [_Question(image, None)], 1))
        except Exception as error:  # The network can fail in many ways, such as lack of memory.
            on_failure(error)
        else:
            self.ready = True
            on_ready()

    def _run_network(self, images: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
        """Return the probabilities of each image, float32[K]."""
        return list(self.model.probabilities(_padded(images, size)))[: len(images)]

    def _run_explanation(self, questions: Sequence[_Question], size: int) -> list[_Heat]:  # noqa: ARG002
        """Return the heatmap of the only question of a batch."""
        (question,) = questions
        assert self.model.heat is not None
        (row,) = self._run_network([question.pixels], self._sizes[0])
        index = int(np.argmax(row)) if question.target is None else question.target
        heat = self.model.heat(question.pixels[None], np.array([index], np.int32))
        return [_Heat(row, index, heat[0])]


def _padded(images: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Return images and zeros as one array, uint8[size, H, W, C]."""
    batch = np.zeros((size, *images[0].shape), np.uint8)
    np.stack(images, out=batch[: len(images)])
    return batch
