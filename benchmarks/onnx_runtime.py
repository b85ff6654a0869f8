"""Measure inference with onnxruntime, in float32 and int8, beside `jax.jit` with folded BatchNorm.

    python -m benchmarks.onnx_runtime --networks resnet18 resnet50 --batch-sizes 1 8

All contenders take the same random uint8 images and return probabilities.  They take turns, each
for some batches in a row, the first of which does not count, because the threads of the contender
before may still be awake.  The table shows medians over the rounds.  Weights are random, and the
int8 models are calibrated on noise: their speed does not depend on the values.

onnxruntime keeps its threads spinning for the next call.  That is its default, and it costs
processor time between the calls of a program that does other work.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from resnet_jax import Classifier, Preprocessing, create_model
from resnet_jax.export.onnx import quantize_onnx, write_onnx
from resnet_jax.export.program import abstract_images, build_program
from resnet_jax.inference.onnx_runtime import OnnxModel
from tests.export.networks import golden_variables

JAX, FLOAT, INT8 = "jax.jit, folded", "onnxruntime float32", "onnxruntime int8"
_CALIBRATION = 8


def contenders(name: str, size: int, directory: Path) -> dict[str, Callable[[np.ndarray], object]]:
    """Return functions of images uint8[B, H, W, 3] by the name of their row."""
    model = create_model(name)
    classes = [str(i) for i in range(model.num_classes)]
    preprocessing = Preprocessing(
        image_size=size,
        crop_fraction=0.875,
        interpolation="pil_bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        channels=3,
    )
    classifier = Classifier(model, golden_variables(model), preprocessing, classes)
    program = build_program(classifier, by_platform=True)
    variables = jax.device_put(program.variables)
    compiled = jax.jit(program.function)

    portable = build_program(classifier)
    floats, integers = directory / f"{name}.onnx", directory / f"{name}-int8.onnx"
    arguments = (portable.variables, abstract_images(portable))
    seconds = time.perf_counter()
    write_onnx(portable.function, arguments, floats)
    seconds = time.perf_counter() - seconds
    calibration = np.random.default_rng(1).integers(
        0, 256, (_CALIBRATION, *portable.image_shape), np.uint8
    )
    result = quantize_onnx(floats, integers, [calibration])
    print(
        f"{name}: {result.bytes_before / 1e6:.1f} MB written in {seconds:.1f} s, "
        f"int8 {result.bytes_after / 1e6:.1f} MB, 7 bits: {result.reduce_range}",
        flush=True,
    )
    return {
        JAX: lambda images: compiled(variables, images).block_until_ready(),
        FLOAT: OnnxModel(floats),
        INT8: OnnxModel(integers),
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    options = parser.parse_args()
    rows = []
    for name in options.networks:
        with tempfile.TemporaryDirectory() as directory:
            runners = contenders(name, options.image_size, Path(directory))
            rows += [
                (name, batch, measure(runners, batch, options)) for batch in options.batch_sizes
            ]
    print(f"\n| network | batch | {JAX} | {FLOAT} | {INT8} | float32 / jax | int8 / float32 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, batch, speeds in rows:
        jax_speed, float_speed, int8_speed = (speeds[row] for row in (JAX, FLOAT, INT8))
        print(
            f"| `{name}` | {batch} | {jax_speed:.1f} | {float_speed:.1f} | {int8_speed:.1f} | "
            f"{float_speed / jax_speed:.2f} | {int8_speed / float_speed:.2f} |"
        )


def measure(
    runners: dict[str, Callable[[np.ndarray], object]], batch: int, options: argparse.Namespace
) -> dict[str, float]:
    """Return the images per second of each row, the median over the rounds."""
    size = options.image_size
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    for run in runners.values():
        run(images)
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(options.rounds):
        for name, run in runners.items():
            run(images)
            calls, started = 0, time.perf_counter()
            while not calls or time.perf_counter() - started < options.seconds:
                run(images)
                calls += 1
            speeds[name].append(calls * batch / (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in speeds.items()}


if __name__ == "__main__":
    main()
