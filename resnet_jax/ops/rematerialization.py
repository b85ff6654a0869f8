"""Blocks that are computed again in the backward pass instead of being kept for it.

`jax.checkpoint` keeps the compiler from merging the second computation with the first by an
optimization barrier.  XLA's CPU backend drops barriers before it merges equal computations for the
last time: memory stays what it was.  There, the input of the second computation is put behind the
gradient of its output (`resnet_jax.ops.ordering`).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax.core import lift
from flax.linen.transforms import lift_transform

from resnet_jax.ops.ordering import behind


def remat(apply: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, of whose computation only the input is kept for the backward pass.

    Args:
        apply: (module, float[B, ...], anything) -> outputs, the first of which is float[B, ...].
    """
    if jax.default_backend() != "cpu":
        return nn.remat(apply)
    return lift_transform(_lifted, apply)


def _lifted(apply: Callable[..., Any]) -> Callable[..., Any]:
    """`flax.core.lift.checkpoint`, with `_recomputed` in place of `jax.checkpoint`."""

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
    """``computed(state, x)``, whose first array has the first axis of x."""
    leaves, structure = jax.tree.flatten(state)
    # As a program, so that what surrounds its tracing, such as masks, is there the second time.
    program, shapes = jax.make_jaxpr(
        lambda x, *leaves: computed(jax.tree.unflatten(structure, leaves), x), return_shape=True
    )(x, *leaves)

    def run(x: jax.Array, *others: Any) -> list[jax.Array]:
        constants, leaves = others[: len(program.consts)], others[len(program.consts) :]
        return jax.core.eval_jaxpr(program.jaxpr, constants, x, *leaves)

    def backward(saved: tuple[Any, ...], gradients: list[jax.Array]) -> tuple[Any, ...]:
        x, *others = saved
        _, transposed = jax.vjp(run, behind(x, gradients[0]), *others)
        return transposed(gradients)

    recomputed = jax.custom_vjp(run)
    recomputed.defvjp(lambda *inputs: (run(*inputs), inputs), backward)
    outputs = recomputed(x, *program.consts, *leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)
