"""A training step of ResNet-50: images a second, seconds to compile, peak memory.

Beside it the same step of Flax's ImageNet example, and of PyTorch with torchvision's network in
channels-last memory, eager and compiled, where ``--torch-python`` names a Python that has both.
All run in turn, one step each a round; float32, random images, SGD with Nesterov momentum.

    python -m benchmarks.train_step --torch-python /path/to/python
"""

import argparse
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.peers import Peer, compiled, interleaved, print_table, timed
from resnet_jax import create_model
from resnet_jax.config import SGDConfig
from resnet_jax.data import Batch
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.state import create_train_state
from resnet_jax.training.step import make_train_step
from tests.weights.flax_example import FlaxExample

OURS, REMAT, FLAX = "resnet_jax", "resnet_jax, remat", "Flax example"
TORCH = "torch_resnet50.py"
EAGER, COMPILED = "PyTorch eager", "torch.compile"


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


def ours(images: jax.Array, labels: jax.Array, *, remat: bool) -> Stepper:
    """The step of `train.py`, without augmentation."""
    model = create_model("resnet50", remat=remat)
    optimizer = make_optimizer(SGDConfig(), lambda _: 0.1)
    step = make_train_step(model, optimizer, lambda _, images, labels: (images, labels))
    state = create_train_state(jax.random.key(0), model, optimizer, images.shape[1:])
    batch = Batch(images, labels, jnp.ones(len(labels), bool))
    return Stepper(step, state, batch, jax.random.key(1))


def flax_example(images: jax.Array, labels: jax.Array) -> Stepper:
    """That of Flax's ``examples/imagenet/train.py``: L2 of all but vectors is part of the loss."""
    model = FlaxExample((3, 4, 6, 3), bottleneck=True)
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
    variables: Any = jax.jit(lambda key: model.init(key, images[:1], train=False))(
        jax.random.key(0)
    )

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

    params = variables["params"]
    return Stepper(step, (params, variables["batch_stats"], optimizer.init(params)), images, labels)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-python", help="a Python with PyTorch and torchvision")
    options = parser.parse_args()

    size = options.image_size
    images = jax.random.normal(jax.random.key(2), (options.batch_size, size, size, 3))
    labels = jnp.arange(options.batch_size) % 1000
    steppers = {
        OURS: ours(images, labels, remat=False),
        REMAT: ours(images, labels, remat=True),
        FLAX: flax_example(images, labels),
    }
    contenders = {name: timed(stepper) for name, stepper in steppers.items()}
    extra = {
        name: (f"{stepper.seconds:.1f}", f"{stepper.gibibytes:.2f}")
        for name, stepper in steppers.items()
    }
    with ExitStack() as stack:
        if options.torch_python:
            arguments = ("--batch-size", str(options.batch_size), "--image-size", str(size))
            for name, flags in ((EAGER, ()), (COMPILED, ("--compile",))):
                peer = Peer(options.torch_python, TORCH, "train", *arguments, *flags)
                contenders[name] = stack.enter_context(peer)
                extra[name] = (f"{peer.first_seconds:.1f}", "not measured")
        seconds = interleaved(options.rounds, contenders)
    print_table(
        [OURS, REMAT, FLAX, EAGER, COMPILED],
        seconds,
        options.batch_size,
        FLAX,
        extra,
        ("compile s", "peak GiB"),
    )


if __name__ == "__main__":
    main()
