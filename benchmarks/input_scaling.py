"""Find out how many threads of the input pipeline one process can use.

    python -m benchmarks.input_scaling

Decoding and resizing release Python's global interpreter lock (GIL). The rest of the work for an
image holds it: reading, parsing, drawing the crop, and handing the image on. More threads than the
ratio of the two therefore gain nothing, whatever the number of cores.

The script first measures both parts with one thread. It then replaces decoding and resizing by
waiting for as long as they take, which needs no core. So a machine with few cores shows how the
rest behaves with up to 64 threads, including the waiting for the GIL and for the locks of the
loader. It does not show what real cores add: their shared memory bandwidth, and clocks that fall
under load.

It reads the same images as `benchmarks.input_pipeline`. Run it on an idle machine.
"""

import argparse
import ctypes
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from benchmarks.input_pipeline import BATCH, make_images, ours, wall_seconds

THREADS = (1, 2, 4, 8, 16, 32, 64)


class Timed:
    """A function that counts the CPU seconds that it takes in the thread that calls it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        started = time.thread_time()
        try:
            return self.function(*arguments, **options)
        finally:
            self.seconds += time.thread_time() - started


@contextmanager
def replaced(decode: Callable[..., Any], resize: Callable[..., Any]) -> Iterator[None]:
    """Replace the functions that release the GIL, which the library looks up at each call."""
    originals = simplejpeg.decode_jpeg, cv2.resize
    simplejpeg.decode_jpeg, cv2.resize = decode, resize
    try:
        yield
    finally:
        simplejpeg.decode_jpeg, cv2.resize = originals


def measured(directory: Path, batches: int) -> tuple[float, float, float]:
    """Return the CPU seconds per image of one thread: in all, for decoding and for resizing."""
    decode, resize = Timed(simplejpeg.decode_jpeg), Timed(cv2.resize)
    with replaced(decode, resize):
        iterator = ours(directory, "linear", threads=1)
        next(iterator)
        begun = time.process_time(), decode.seconds, resize.seconds
        for _ in itertools.islice(iterator, batches):
            pass
        total, decoding, resizing = (
            after - before
            for before, after in zip(
                begun, (time.process_time(), decode.seconds, resize.seconds), strict=True
            )
        )
        iterator.close()  # pyrefly: ignore
    images = batches * BATCH
    return total / images, decoding / images, resizing / images


def waiting(directory: Path, batches: int, threads: int, decoding: float, resizing: float) -> float:
    """Return the seconds per image if decoding and resizing take no core."""

    def decode(
        data: bytes, *_: Any, min_height: int, min_width: int, buffer: Any = None, **__: Any
    ) -> np.ndarray:
        del data
        time.sleep(decoding)
        return np.empty((min_height, min_width, 3), np.uint8) if buffer is None else buffer

    def resize(*_: Any, dst: np.ndarray, **__: Any) -> np.ndarray:
        time.sleep(resizing)
        return dst

    with replaced(decode, resize):
        iterator = ours(directory, "linear", threads=threads)
        try:
            return wall_seconds(iterator, batches * BATCH) / (batches * BATCH)
        finally:
            iterator.close()  # pyrefly: ignore


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="number of files")
    parser.add_argument("--batches", type=int, default=24, help="batches of 64 images per round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # Without this, Linux lets a thread sleep for up to 50 microseconds more than it asked for.
    ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as directory:
        make_images(Path(directory), options.images)
        parts = [measured(Path(directory), options.batches) for _ in range(options.rounds)]
        total, decoding, resizing = (statistics.median(part) for part in zip(*parts, strict=True))
        held = total - decoding - resizing
        print(
            f"One thread needs {1e6 * total:.0f} us for an image: {1e6 * decoding:.0f} us for "
            f"decoding, {1e6 * resizing:.0f} us for resizing, and {1e6 * held:.0f} us that hold "
            f"the GIL.\nThe GIL therefore limits a process to {1 / held:,.0f} images/s.\n"
        )
        print("| threads | images/s | min - max | of threads x 1 thread |")
        print("|---:|---:|---:|---:|")
        rates: dict[int, list[float]] = {threads: [] for threads in THREADS}
        for _ in range(options.rounds):
            for threads in THREADS:
                seconds = waiting(
                    Path(directory),
                    options.batches * max(1, threads // 8),
                    threads,
                    decoding,
                    resizing,
                )
                rates[threads].append(1 / seconds)
        for threads, values in rates.items():
            rate = statistics.median(values)
            share = rate / (threads * statistics.median(rates[1]))
            print(
                f"| {threads} | {rate:,.0f} | {min(values):,.0f} - {max(values):,.0f} "
                f"| {100 * share:.0f} % |"
            )


if __name__ == "__main__":
    main()
