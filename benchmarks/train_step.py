"""A training step of ResNet-50: images a second, seconds to compile, peak memory.

Beside it the same step of Flax's ImageNet example, and of PyTorch with torchvision's network in
channels-last memory, eager and compiled, where ``--torch-python`` names a Python that has both.
All run in turn, one step each a round; random images, SGD with Nesterov momentum; in float32, on
accelerators in bfloat16 with float32 parameters. Medians; a first round does not count.

    python -m benchmarks.train_step --torch-python /path/to/python

On accelerators MFU is the share of the peak of bfloat16 arithmetic, from the exact number of
operations, and "of bound" that of the rate at which memory could feed unfused layers: see
`benchmarks.bounds`.
"""

import argparse
import statistics
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import bounds
from benchmarks.peers import (
    add_options,
    compiled,
    interleaved,
    print_table,
    timed,
    torch_names,
    torch_peers,
    write_json,
)
from resnet_jax import create_model
from resnet_jax.config import SGDConfig
from resnet_jax.data import Batch
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step
from tests.weights.flax_example import FlaxExample

OURS, REMAT, FLAX = "resnet_jax", "resnet_jax, remat", "Flax example"


class Stepper:
    """A compiled step that keeps its state."""

    def __init__(self, step: Any, state: Any, *inputs: Any) -> None:
        self.step, self.seconds, self.gibibytes = compiled(
            jax.jit(step, donate_argnums=0), state, *inputs
        )
        self.state, self.inputs = state, inputs

    def __call__(self) -> Any:
        """One step; the new state and its metrics."""
        self.state, metrics = self.step(self.state, *self.inputs)
        return self.state, metrics


def ours(images: jax.Array, labels: jax.Array, *, remat: bool, dtype: Any = "float32") -> Stepper:
    """The step of `train.py`, without augmentation."""
    model = create_model("resnet50", remat=remat, dtype=jnp.dtype(dtype))
    optimizer = make_optimizer(SGDConfig(), lambda _: 0.1)
    step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    state = create_train_state(jax.random.key(0), model, optimizer, images.shape[1:])
    batch = Batch(images, labels, jnp.ones(len(labels), bool))
    return Stepper(step, state, batch, jax.random.key(1))


def flax_example(images: jax.Array, labels: jax.Array, *, dtype: Any = "float32") -> Stepper:
    """That of Flax's ``examples/imagenet/train.py``: L2 of all but vectors is part of the loss."""
    model = FlaxExample((3, 4, 6, 3), bottleneck=True, dtype=jnp.dtype(dtype))
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
    variables: Any = jax.jit(lambda key: model.init(key, images[:1], train=False))(
        jax.random.key(0)
    )

    params = variables["params"]
    state = params, variables["batch_stats"], optimizer.init(params)
    return Stepper(flax_example_step(model, optimizer), state, images, labels)


def flax_example_step(model: FlaxExample, optimizer: optax.GradientTransformation) -> Any:
    """A pure function (state, images, labels) -> (state, metrics)."""

    def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        params, batch_stats, opt_state = state

        def loss_fn(params: Any) -> Any:
            logits, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            targets = jax.nn.one_hot(labels, 1000)
            loss = jnp.mean(optax.softmax_cross_entropy(logits, targets))
            kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
            penalty = 1e-4 * 0.5 * sum(jnp.sum(kernel**2) for kernel in kernels)
            return loss + penalty, (loss, logits, updated["batch_stats"])

        grads, (loss, logits, batch_stats_) = jax.grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        metrics = {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == labels)}
        return (optax.apply_updates(params, updates), batch_stats_, opt_state), metrics

    return step


def main() -> None:
    """Measures and prints a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, batch_sizes=[16])
    options = parser.parse_args()
    results = {}
    for batch_size in options.batch_sizes:
        print(f"\nbatch {batch_size}, {options.dtype}\n", flush=True)
        results[batch_size] = measure(options, batch_size)
    if options.json:
        write_json(options.json, options, results)


def measure(options: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    """Prints a table; returns its numbers by name."""
    size, dtype = options.image_size, options.dtype
    images = jax.random.normal(jax.random.key(2), (batch_size, size, size, 3), dtype)
    labels = jnp.arange(batch_size) % 1000
    steppers = {
        OURS: ours(images, labels, remat=False, dtype=dtype),
        REMAT: ours(images, labels, remat=True, dtype=dtype),
        FLAX: flax_example(images, labels, dtype=dtype),
    }
    with ExitStack() as stack:
        peers = torch_peers(options, "train", batch_size)
        for peer in peers.values():
            stack.enter_context(peer)
        seconds = interleaved(
            options.rounds, {name: timed(stepper) for name, stepper in steppers.items()} | peers
        )
    results = {
        name: {
            "seconds": seconds[name],
            "images_per_second": batch_size / statistics.median(seconds[name]),
            "compile_seconds": stepper.seconds,
            "peak_gibibytes": stepper.gibibytes,
        }
        for name, stepper in steppers.items()
    } | {
        name: {
            "seconds": seconds[name],
            "images_per_second": batch_size / statistics.median(seconds[name]),
            "first_step_seconds": peer.first_seconds,
        }
        for name, peer in peers.items()
    }
    headings = ("compile s", "peak GiB")
    extra = {
        name: (
            f"{result.get('compile_seconds', result.get('first_step_seconds')):.1f}",
            f"{result['peak_gibibytes']:.2f}" if name in steppers else "not measured",
        )
        for name, result in results.items()
    }
    peaks = bounds.peaks(jax.devices()[0].device_kind)
    if peaks:
        headings += ("MFU", "of bound")
        model, (flops, bandwidth) = create_model("resnet50"), peaks
        needed = bounds.training_flops(model, size)
        moved = bounds.training_bytes(model, size, jnp.dtype(dtype).itemsize, bounds.UNFUSED)
        for name, result in results.items():
            result["mfu"] = result["images_per_second"] * needed / flops
            result["of_bound"] = result["images_per_second"] * moved / bandwidth
            extra[name] += (f"{result['mfu']:.1%}", f"{result['of_bound']:.1%}")
    print_table(
        [OURS, REMAT, FLAX, *torch_names(options)], seconds, batch_size, FLAX, extra, headings
    )
    return results


if __name__ == "__main__":
    main()
