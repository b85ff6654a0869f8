"""Compare the throughput of our input pipeline with its peers, from files to batches.

    python -m benchmarks.input_pipeline --tf-python TF --torch-python TORCH

The benchmark makes JPEG files of 500x375 pixels from the photographs of scikit-learn and
scikit-image, and reads them as training batches of 224x224 pixels with random resized crops.  The
first table states images per second of CPU time, summed over all threads.  The second table states
images per second of wall time for several numbers of threads and processes, and the peak memory of
all processes together for batches of 256.  The files are in the page cache.  Each peer needs its
own environment:

    python -m venv tf && tf/bin/pip install tensorflow
    python -m venv torch && torch/bin/pip install torch torchvision timm

A peer without an environment is left out.
"""

import argparse
import io
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

BATCH = 64
SIZE = 224


def make_images(directory: Path, count: int) -> None:
    """Write JPEG files of the average size of ImageNet's, in two classes."""
    import numpy as np
    import skimage.data
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [np.asarray(photo) for photo in load_sample_images().images]
    photos += [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    rng = np.random.default_rng(0)
    for i in range(count):
        photo = photos[i % len(photos)]
        height, width = (int(side * rng.uniform(0.7, 1)) for side in photo.shape[:2])
        top = int(rng.integers(photo.shape[0] - height + 1))
        left = int(rng.integers(photo.shape[1] - width + 1))
        part = Image.fromarray(photo[top : top + height, left : left + width])
        pixels = np.asarray(part.resize((500, 375)), np.float32)
        grained = np.clip(pixels + rng.normal(0, 9, pixels.shape), 0, 255).astype(np.uint8)
        path = directory / str(i % 2) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(grained).save(buffer, "JPEG", quality=92)
        path.write_bytes(buffer.getvalue())


def ours(
    directory: Path, interpolation: str, *, threads: int = 1, workers: int = 0, batch: int = BATCH
) -> Iterator[Any]:
    """Return the training batches of `ImageSplit`, as a run uses them."""
    from resnet_jax.config import ImageConfig
    from resnet_jax.data.images.folder import open_splits
    from resnet_jax.data.images.loading import ImageSplit
    from resnet_jax.ops.host_memory import keep_freed_memory

    keep_freed_memory()

    train = open_splits(directory, evaluation_share=0.01, seed=0)["train"]
    config = ImageConfig(
        image_size=SIZE, threads=threads, workers=workers, train_interpolation=interpolation
    )
    return ImageSplit(train, config).train_batches(batch, seed=0, start_step=0)


def tf_data(directory: Path, variant: str) -> Iterator[Any]:
    """Return the batches of tf.data, whose decoder crops.

    ``flax`` resizes bicubically, flips, and normalizes in float32, as Flax's ImageNet example;
    ``uint8`` resizes bilinearly and leaves the rest to the device, as ours.
    """
    import tensorflow as tf

    files = sorted(map(str, directory.rglob("*.jpg")))

    def load(path: Any) -> Any:
        data = tf.io.read_file(path)
        shape = tf.io.extract_jpeg_shape(data)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            shape,
            tf.zeros((1, 0, 4)),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.io.decode_and_crop_jpeg(data, window, channels=3)
        if variant == "uint8":
            return tf.cast(tf.image.resize([image], (SIZE, SIZE))[0] + 0.5, tf.uint8)
        image = tf.image.resize([image], (SIZE, SIZE), method=tf.image.ResizeMethod.BICUBIC)[0]
        image = tf.image.random_flip_left_right(tf.reshape(image, (SIZE, SIZE, 3)))
        return (image - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]

    dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files)).repeat()
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    dataset = dataset.map(load, num_parallel_calls=1).batch(BATCH).prefetch(1).with_options(options)
    return dataset.as_numpy_iterator()


def timm_transform(directory: Path) -> Iterator[Any]:
    """Return batches of timm's transform with random interpolation and flips, as uint8."""
    import numpy as np
    from PIL import Image
    from timm.data import create_transform

    transform = create_transform(SIZE, is_training=True, use_prefetcher=True, color_jitter=None)
    files = sorted(directory.rglob("*.jpg"))
    images = (Image.open(path).convert("RGB") for path in itertools.cycle(files))
    while True:
        yield np.stack([transform(image) for image in itertools.islice(images, BATCH)])


OURS, FLAX = "resnet_jax, linear", "tf.data as in Flax's example"

PEERS: dict[str, tuple[str, Callable[[Path], Iterator[Any]]]] = {
    OURS: ("python", lambda directory: ours(directory, "linear")),
    "resnet_jax, pil_bilinear": ("python", lambda directory: ours(directory, "pil_bilinear")),
    FLAX: ("tf_python", lambda directory: tf_data(directory, "flax")),
    "tf.data, uint8": ("tf_python", lambda directory: tf_data(directory, "uint8")),
    "timm create_transform": ("torch_python", timm_transform),
}

CORES = len(os.sched_getaffinity(0))
# Number of threads of each process, and number of additional processes.
LAYOUTS = {
    "1 thread": (1, 0),
    f"{CORES} threads": (CORES, 0),
    f"{CORES} processes": (1, CORES),
}
LARGE_BATCH = 256


def cpu_seconds(iterator: Iterator[Any], images: int) -> float:
    """Return the CPU seconds for some images, after waiting for the prefetched images."""
    started = time.process_time()
    for _ in itertools.islice(iterator, images // BATCH):
        pass
    time.sleep(1.5)
    return time.process_time() - started


def serve(iterator: Iterator[Any], images: int) -> None:
    """Measure one round immediately, and another one for each line of the input."""
    print(cpu_seconds(iterator, images), flush=True)
    for _ in sys.stdin:
        print(cpu_seconds(iterator, images), flush=True)


def wall_seconds(iterator: Iterator[Any], images: int) -> float:
    """Return the wall seconds for some images, after using up the prefetched images."""
    for _ in itertools.islice(iterator, 4 + 4 * CORES):
        pass
    started = time.perf_counter()
    for _ in itertools.islice(iterator, images // BATCH):
        pass
    return time.perf_counter() - started


def peak_mib() -> float:
    """Return the sum of the peak memory of this process and its children, in MiB."""
    pids = [Path("/proc/self")]
    for task in Path("/proc/self/task").iterdir():
        pids += [Path("/proc", pid) for pid in (task / "children").read_text().split()]
    lines = "".join((pid / "status").read_text() for pid in pids).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def serve_layout(layout: str, directory: Path, images: int) -> None:
    """Measure rounds as `serve` does, in wall time; ``memory`` asks for the peak memory."""
    threads, workers = LAYOUTS[layout]
    iterator: Any = ours(directory, "linear", threads=threads, workers=workers)
    print(wall_seconds(iterator, images), flush=True)
    for line in sys.stdin:
        if line != "memory\n":
            print(wall_seconds(iterator, images), flush=True)
            continue
        iterator.close()
        iterator = ours(directory, "linear", threads=threads, workers=workers, batch=LARGE_BATCH)
        for _ in itertools.islice(iterator, 4 + 4 * CORES):
            pass
        peak = peak_mib()
        # Killing this process would leave the memory that it shares with its workers allocated.
        iterator.close()
        print(peak, flush=True)


def main() -> None:
    """Make the images, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batches", type=int, default=8, help="number of batches of 64 images per round"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tf-python", help="a Python with TensorFlow")
    parser.add_argument("--torch-python", help="a Python with PyTorch, torchvision and timm")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--layout", choices=LAYOUTS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    images = options.batches * BATCH
    if options.peer:
        serve(PEERS[options.peer][1](options.directory), images)
        return
    if options.layout:
        serve_layout(options.layout, options.directory, images)
        return

    # This module imports JAX, which the environments of the peers lack.
    from benchmarks.peers import Peer, interleaved, print_table

    pythons = {
        "python": sys.executable,
        "tf_python": options.tf_python,
        "torch_python": options.torch_python,
    }
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        make_images(Path(directory), images)
        sizes = [path.stat().st_size for path in Path(directory).rglob("*.jpg")]
        print(f"{len(sizes)} files of {sum(sizes) / len(sizes) / 1000:.0f} KB on average\n")
        shared = (f"--directory={directory}", f"--batches={options.batches}")
        script = Path(__file__).name
        seconds = interleaved(
            options.rounds,
            {
                name: stack.enter_context(Peer(pythons[python], script, f"--peer={name}", *shared))
                for name, (python, _) in PEERS.items()
                if pythons[python]
            },
        )
        reference = FLAX if FLAX in seconds else OURS
        print_table(list(PEERS), seconds, images, reference, dict.fromkeys(PEERS, ()), ())
        stack.pop_all().close()

        layouts = {
            name: stack.enter_context(Peer(sys.executable, script, f"--layout={name}", *shared))
            for name in LAYOUTS
        }
        seconds = interleaved(options.rounds, dict(layouts))
        memory = {name: (f"{layout('memory'):.0f}",) for name, layout in layouts.items()}
    print()
    print_table(
        list(LAYOUTS),
        seconds,
        images,
        next(iter(LAYOUTS)),
        memory,
        ("peak MiB, batch 256",),
    )


if __name__ == "__main__":
    main()
