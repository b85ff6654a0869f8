"""Blocks that are computed again in the backward pass, instead of keeping their activations.

`jax.checkpoint` uses an optimization barrier so that the compiler does not merge the second
computation with the first.  XLA's CPU backend drops barriers before it merges equal computations
for the last time, so that no memory is saved there.  On CPUs, the second computation is therefore
made to depend on the gradient of its output (`resnet_jax.ops.ordering`).  The temporary memory of a
ResNet-50 training step at 224 pixels, batch 16, is 0.58 GiB this way, 1.30 GiB with
`jax.checkpoint` and 1.31 GiB without either, by XLA's analysis (2 cores of an AMD EPYC (Zen 4,
AVX-512), jax 0.10.2, 2026-11-28).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from flax.core import lift
from flax.linen.transforms import lift_transform

from resnet_jax.ops.convolution import CONVOLUTION
from resnet_jax.ops.gradients import custom_gradient, gradients_are_automatic
from resnet_jax.ops.manual_axes import within_shard_map
from resnet_jax.ops.ordering import after
from resnet_jax.ops.platform import by_platform, chosen_program, stated_platform


def remat(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, which keeps only its inputs for the backward pass.

    Args:
        apply: (module, float[B, ...], anything) -> outputs, the first of which is float[B, ...].
    """
    if gradients_are_automatic() or within_shard_map():
        # Inside `jax.shard_map`, a second trace of the program would need other types.
        return nn.remat(apply)
    return lift_transform(_lifted, apply)


def keep_convolutions(primitive: Any, *_: Any, **params: Any) -> bool:
    """Return whether a loop over blocks keeps a result for its backward pass.

    This is a policy of `jax.checkpoint`.  It keeps convolutions and sums, such as statistics; the
    rest is recomputed where it is used.  XLA decides so by itself outside of loops, but a loop
    would write every intermediate result to memory.

    Where the trainer states that it computes on CPUs, convolutions are recomputed too.  Kept, they
    raise the memory of a training step of ResNet-152 from 1,672 to 2,572 MiB (224 pixels, batch
    16), and the step takes 10 % longer to compile (64 pixels, batch 2; 2 cores of an AMD EPYC,
    Zen 4, AVX-512, jax 0.10.2, 2026-11-28).
    """
    if primitive.name == "name":
        return params["name"] == CONVOLUTION and stated_platform() != "cpu"
    return primitive.name == "reduce_sum"


def _lifted(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Return the lifted function, as `flax.core.lift.checkpoint` does with `jax.checkpoint`."""

    def inner(
        scope_fn: Any, repack_fn: Any, variables: Any, rngs: Any, x: jax.Array, *others: Any
    ) -> Any:
        def computed(state: Any, x: jax.Array) -> Any:
            scope = scope_fn(*state)
            y = apply(scope, x, *others)
            return y, repack_fn(scope)

        return _recomputed(computed, (variables, rngs), x)

    return lift.pack(inner, (True,), (True,), (True,), name="remat")


def _recomputed(computed: Callable[[Any, jax.Array], Any], state: Any, x: jax.Array) -> Any:
    """Return ``computed(state, x)``, whose first array has the same first axis as x."""
    leaves, structure = jax.tree.flatten(state)
    # Traced once to a program, so that its second run sees the same surroundings, such as masks.
    program, shapes = jax.make_jaxpr(
        lambda x, *leaves: computed(jax.tree.unflatten(structure, leaves), x), return_shape=True
    )(x, *leaves)
    ordered = partial(
        by_platform, cpu=_after_gradient, default=_behind_barrier, program=chosen_program(x)
    )

    def run(x: jax.Array, *others: Any) -> list[jax.Array]:
        constants, leaves = others[: len(program.consts)], others[len(program.consts) :]
        return jax.core.eval_jaxpr(program.jaxpr, constants, x, *leaves)

    def backward(saved: tuple[Any, ...], gradients: list[jax.Array]) -> tuple[Any, ...]:
        _, transposed = jax.vjp(run, *ordered(saved, gradients[0]))
        return transposed(gradients)

    recomputed = custom_gradient(lambda *inputs: (run(*inputs), inputs), backward)(run)
    outputs = recomputed(x, *program.consts, *leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _after_gradient(inputs: tuple[Any, ...], gradient: jax.Array) -> tuple[Any, ...]:
    x, *others = inputs
    return after(x, gradient), *others


def _behind_barrier(inputs: tuple[Any, ...], gradient: jax.Array) -> tuple[Any, ...]:
    return jax.lax.optimization_barrier((inputs, gradient))[0]
