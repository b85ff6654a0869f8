"""Measure ResNet-50 on an accelerator and write every number to one JSON file.

``benchmarks/gpu.sh`` runs it on a fresh machine.  The parts are:

- ``train_step`` and ``inference``: the benchmarks of these names at several batch sizes, together
  with PyTorch and timm if ``--torch-python`` names a Python interpreter that has them.
- ``variants``: training with each lever that is off by default turned on: kernels for BatchNorm,
  addition and ReLU, 1x1 convolutions as matrix products, the stem on squares of 2x2 pixels,
  BatchNorm statistics of groups, several steps in one dispatch, and all that may help together.
- ``kernels``: each kernel next to what XLA makes of its formula.
- ``flags``: training with flags of XLA, each in a process of its own.

Each part runs in a process that ends when the rest of ``--budget`` is used up.  A part that fails
leaves its error in the file, and the others continue.  ``--parts`` runs some of them, and keeps the
other parts that the file has.

    python -m benchmarks.accelerator --json accelerator.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import Stepper, interleaved, timed, write_json
from resnet_jax import create_model
from resnet_jax.config import SGDConfig
from resnet_jax.data import Batch
from resnet_jax.ops.platform import Formulation, formulation, fused_normalization
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step

SHARED = ("image-size", "rounds", "dtype")
"""Options that every part accepts."""

STEPS = 8
"""Number of steps in one dispatch, in the variant that has several."""

PARTS = ("train_step", "variants", "kernels", "inference", "flags")

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "fused normalization": {"fused": True},
    "product": {"how": "product"},
    "space to depth": {"how": "space_to_depth"},
    "BatchNorm in groups of 32": {"bn_group_size": 32},
    f"{STEPS} steps a dispatch": {"steps": STEPS},
    "fused, space to depth, several steps": {
        "fused": True,
        "how": "space_to_depth",
        "steps": STEPS,
    },
}

# The first two flags are from https://docs.jax.dev/en/latest/gpu_performance_tips.html, the others
# from the flags that jaxlib 0.10.2 knows.
FLAGS = {
    "default": "",
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "triton gemm": "--xla_gpu_triton_gemm_any=true",
    "convolution fusion": "--xla_gpu_experimental_enable_conv_fusion=true",
    "cuDNN runtime fusion": "--xla_gpu_use_runtime_fusion=true",
    "NHWC": "--xla_gpu_force_conv_nhwc=true",
    "multi-output fusion": "--xla_gpu_unsupported_enable_triton_multi_output_fusion=true",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    # The second of these finds the results of the first, which only shortens its compilation.
    "autotuning cache, empty": "--xla_gpu_per_fusion_autotune_cache_dir={cache}",
    "autotuning cache, filled": "--xla_gpu_per_fusion_autotune_cache_dir={cache}",
}


def variant(
    images: jax.Array,
    *,
    how: Formulation | None = None,
    bn_group_size: int | None = None,
    steps: int = 1,
    fused: bool = False,
) -> Stepper:
    """Return the training step of one variant; several steps return the metrics of the last."""
    size = None if bn_group_size is None else min(bn_group_size, images.shape[0])
    model = create_model("resnet50", dtype=images.dtype, bn_group_size=size)
    optimizer = create_optimizer(SGDConfig(), lambda _: 0.1)
    step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    state = create_train_state(jax.random.key(0), model, optimizer, images.shape[1:])
    batch = Batch(images, jnp.arange(images.shape[0]) % 1000, jnp.ones(images.shape[0], bool))

    def several(state: Any, batch: Any, key: jax.Array) -> Any:
        state, metrics = jax.lax.scan(lambda s, _: step(s, batch, key), state, length=steps)
        return state, jax.tree.map(lambda x: x[-1], metrics)

    kernels = fused_normalization("accelerator" if fused else "off")
    with kernels, formulation(how) if how else nullcontext():
        return Stepper(step if steps == 1 else several, state, batch, jax.random.key(1))


def measure(options: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Measure the variants in turn, and return images per second and compile times by name."""
    size = options.image_size
    images = jax.random.normal(
        jax.random.key(2), (options.batch_size, size, size, 3), jnp.dtype(options.dtype)
    )
    steppers = {name: variant(images, **VARIANTS[name]) for name in names}
    seconds = interleaved(options.rounds, {name: timed(s) for name, s in steppers.items()})
    return {
        name: {
            "images_per_second": options.batch_size
            * VARIANTS[name].get("steps", 1)
            / statistics.median(seconds[name]),
            "seconds": seconds[name],
            "compile_seconds": stepper.seconds,
            "peak_gibibytes": stepper.gibibytes,
        }
        for name, stepper in steppers.items()
    }


def run_part(command: list[str], timeout: float, flags: str = "") -> Any:
    """Run a part of the benchmark; return what it writes to its ``--json``, or its error."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "part.json"
        environment = dict(os.environ)
        if flags:
            environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}"
        try:
            subprocess.run(
                [sys.executable, "-m", *command, f"--json={path}"],
                env=environment,
                timeout=timeout,
                check=True,
                stdout=sys.stderr,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            return {"error": str(error)}
        return json.loads(path.read_text())


def main() -> None:
    """Run all parts, or only the variants that ``--variants`` names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="file to write all numbers to")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--batch-size", type=int, default=256, help="for variants and flags")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--torch-python", help="a Python with PyTorch, torchvision and timm")
    parser.add_argument("--budget", type=float, default=460, help="total number of seconds")
    parser.add_argument("--flags", nargs="*", default=list(FLAGS), choices=list(FLAGS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="run only these parts")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=list(VARIANTS),
        help="measure only these variants, in this process",
    )
    options = parser.parse_args()
    if options.variants:
        write_json(options.json, options, measure(options, options.variants))
        return

    shared = [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in SHARED]
    sizes = ["--batch-sizes", *map(str, options.batch_sizes)]
    torch = [f"--torch-python={options.torch_python}", "--timm"] if options.torch_python else []
    here = ["benchmarks.accelerator", *shared, f"--batch-size={options.batch_size}", "--variants"]
    parts: dict[str, tuple[list[str], str]] = {
        "train_step": (["benchmarks.train_step", *shared, *torch, *sizes], ""),
        "variants": ([*here, *VARIANTS], ""),
        "kernels": (["benchmarks.normalization_kernels", *shared, here[-2]], ""),
        "inference": (["benchmarks.inference", *shared, *torch, *sizes], ""),
    }
    with tempfile.TemporaryDirectory() as cache:
        for name in options.flags:
            parts[f"flags: {name}"] = ([*here, "default"], FLAGS[name].format(cache=cache))
        run_parts(parts, options)


def run_parts(parts: dict[str, tuple[list[str], str]], options: argparse.Namespace) -> None:
    """Run parts, each a command and flags of XLA, and write their results by name."""
    ends = time.monotonic() + options.budget
    results = {}
    if options.parts:
        parts = {name: part for name, part in parts.items() if name.split(":")[0] in options.parts}
        results = json.loads(options.json.read_text()) if options.json.exists() else {}
    for name, (command, flags) in parts.items():
        started = time.monotonic()
        results[name] = run_part(command, max(1.0, ends - started), flags)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        # Written after every part, so that an interrupted run keeps its results.
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
