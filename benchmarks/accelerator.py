"""All that is to be known of ResNet-50 on an accelerator, in one JSON; see `gpu.sh`.

- ``train_step`` and ``inference``: the benchmarks of these names over batch sizes, beside PyTorch
  and timm where ``--torch-python`` names a Python that has them,
- ``variants``: training with convolutions of 1x1 as matrix products, the stem on squares of 2x2
  pixels, statistics of BatchNorm in groups, and several steps in one dispatch,
- ``flags``: training under the XLA flags of JAX's GPU guide, a process each.

Each part is a process that ends after its share of ``--budget``; one that fails leaves its error,
and the others go on.

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
from resnet_jax.ops.convolution import Formulation, formulation
from resnet_jax.training.optim import create_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step

SHARED = ("image-size", "rounds", "dtype")
"""Options that all parts have."""

STEPS = 8
"""In one dispatch of the variant that has several."""

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "product": {"how": "product"},
    "space to depth": {"how": "space_to_depth"},
    "BatchNorm in groups of 32": {"bn_group_size": 32},
    f"{STEPS} steps a dispatch": {"steps": STEPS},
}

# https://docs.jax.dev/en/latest/gpu_performance_tips.html
FLAGS = {
    "default": "",
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "triton gemm": "--xla_gpu_triton_gemm_any=true",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
}


def variant(
    images: jax.Array,
    *,
    how: Formulation | None = None,
    bn_group_size: int | None = None,
    steps: int = 1,
) -> Stepper:
    """The training step of one variant; of several steps the last metrics come out."""
    size = None if bn_group_size is None else min(bn_group_size, len(images))
    model = create_model("resnet50", dtype=images.dtype, bn_group_size=size)
    optimizer = create_optimizer(SGDConfig(), lambda _: 0.1)
    step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    state = create_train_state(jax.random.key(0), model, optimizer, images.shape[1:])
    batch = Batch(images, jnp.arange(len(images)) % 1000, jnp.ones(len(images), bool))

    def several(state: Any, batch: Any, key: jax.Array) -> Any:
        state, metrics = jax.lax.scan(lambda s, _: step(s, batch, key), state, length=steps)
        return state, jax.tree.map(lambda x: x[-1], metrics)

    with formulation(how) if how else nullcontext():
        return Stepper(step if steps == 1 else several, state, batch, jax.random.key(1))


def measure(options: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Images a second of variants, in turn."""
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
    """What a part of the benchmark writes to its ``--json``, or its error."""
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
    """Runs all parts, or with ``--variants`` one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="file to write all numbers to")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--batch-size", type=int, default=256, help="of the variants and flags")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--torch-python", help="a Python with PyTorch, torchvision and timm")
    parser.add_argument("--budget", type=float, default=460, help="seconds for all of it")
    parser.add_argument("--flags", nargs="*", default=list(FLAGS), choices=list(FLAGS))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="only these, here")
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
        "inference": (["benchmarks.inference", *shared, *torch, *sizes], ""),
    }
    for name in options.flags:
        parts[f"flags: {name}"] = ([*here, "default"], FLAGS[name])
    ends = time.monotonic() + options.budget
    results = {}
    for name, (command, flags) in parts.items():
        started = time.monotonic()
        results[name] = run_part(command, max(1.0, ends - started), flags)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        # After every part, so that what is measured is kept.
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
