"""BatchNorm, the addition of a shortcut and ReLU, in one pass over memory each way.

Training a ResNet on an accelerator is bound by memory traffic.  Three kernels read each array once
and write each result once:

- `Pass.APPLY`: the normalized, scaled and shifted array, plus the shortcut, after ReLU.
- `Pass.SUMS`: the two sums that the backward pass needs first, of the gradient that passed ReLU and
  of its product with the centered input.
- `Pass.GRADIENTS`: the gradient of the input, and the gradient of the shortcut.

All arithmetic is in float32, whatever the type of the arrays.  Arrays and vectors have the shapes
of `resnet_jax.ops.tiles`.

XLA does not know how to partition a kernel, and would gather all examples on every device.
`jax.experimental.custom_partitioning` tells it that examples and channels are independent.
"""

import enum
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resnet_jax.ops.gradients import custom_gradient
from resnet_jax.ops.manual_axes import vary_over, varying_axes, within_shard_map
from resnet_jax.ops.platform import Kernels
from resnet_jax.ops.tiles import Target, map_tiles, sum_tiles

Arrays = tuple[jax.Array, ...]


class Pass(enum.Enum):
    """What a kernel computes.

    The arrays of images are ``x`` and the shortcut, if there is one (APPLY), or the gradient of the
    output, ``x`` and the output, if there is a shortcut (SUMS and GRADIENTS).  The vectors are
    mean, factor and bias; GRADIENTS may have two more, see `Kernel.gradients`.
    """

    APPLY = "batch_norm_apply"
    SUMS = "batch_norm_sums"
    GRADIENTS = "batch_norm_gradients"


class Kernel(NamedTuple):
    """A kernel, with everything about it that is not an array.

    Attributes:
        part: what it computes.
        relu: whether the output passes ReLU.
        dtypes: types of the results of APPLY and GRADIENTS.
    """

    part: Pass
    relu: bool
    dtypes: tuple[Any, ...] = ()

    def formula(self, *arrays: jax.Array) -> Arrays:
        """Return the results as JAX computes them: the reference, and the program without kernels.

        Args:
            arrays: the arrays of images, float[N, P, C], and the vectors, float32[V, L, C].

        Returns:
            dtype[N, P, C] for each type, or float32[N, 2, C] for SUMS.
        """
        *images, vectors = arrays
        results = self.tiles(
            [x.astype(jnp.float32) for x in images],
            [vectors[:, i, None] for i in range(vectors.shape[1])],
        )
        if self.part is Pass.SUMS:
            return (jnp.stack([jnp.sum(x, axis=1) for x in results], axis=1),)
        return tuple(x.astype(dtype) for x, dtype in zip(results, self.dtypes, strict=True))

    def compiled(self, target: Target, *arrays: jax.Array) -> Arrays:
        """Return the results of the kernel.  Arguments and results are those of `formula`."""
        *images, vectors = arrays
        name = self.part.value
        if self.part is Pass.SUMS:
            return (sum_tiles(self.tiles, images, vectors, 2, target=target, name=name),)
        return tuple(map_tiles(self.tiles, images, vectors, self.dtypes, target=target, name=name))

    def tiles(self, images: list[jax.Array], vectors: list[jax.Array]) -> Sequence[jax.Array]:
        """Compute tiles of the results from tiles of the arrays, or whole arrays alike."""
        match self.part:
            case Pass.APPLY:
                return self.apply(images, vectors)
            case Pass.SUMS:
                return self.summands(images, vectors)
            case Pass.GRADIENTS:
                return self.gradients(images, vectors)

    def apply(self, images: list[jax.Array], vectors: list[jax.Array]) -> Sequence[jax.Array]:
        """Return the output."""
        x, *shortcut = images
        mean, factor, bias = vectors
        y = (x - mean) * factor + bias
        for other in shortcut:
            y = y + other
        # Triton's maximum would drop NaN.
        return (jnp.where(y <= 0, 0.0, y) if self.relu else y,)

    def summands(self, images: list[jax.Array], vectors: list[jax.Array]) -> Sequence[jax.Array]:
        """Return the gradient before ReLU, and its product with the centered input."""
        gradient = self._before_relu(images, vectors)
        return gradient, gradient * (images[1] - vectors[0])

    def gradients(self, images: list[jax.Array], vectors: list[jax.Array]) -> Sequence[jax.Array]:
        """Return the gradients of x and, if asked for, of the shortcut.

        Two more vectors, if there are any, are the gradients that reach each value of x through the
        moments of the batch: a constant, and a factor of the centered input.
        """
        gradient = self._before_relu(images, vectors)
        mean, factor, _, *through = vectors
        of_x = gradient
        if through:
            constant, slope = through
            of_x = gradient - (constant + (images[1] - mean) * slope)
        return (of_x * factor, gradient)[: len(self.dtypes)]

    def _before_relu(self, images: list[jax.Array], vectors: list[jax.Array]) -> jax.Array:
        """Return the gradient of what ReLU was applied to."""
        gradient, x, *output = images
        if not self.relu:
            return gradient
        mean, factor, bias, *_ = vectors
        # Without a shortcut, x alone tells where the output was positive.
        y = output[0] if output else (x - mean) * factor + bias
        return jnp.where(y > 0, gradient, 0.0)


def _forward(kernel: Kernel, kernels: Kernels, *arrays: jax.Array) -> tuple[Arrays, Arrays]:
    return _unwrapped(kernel, kernels, *arrays), arrays


def _backward(kernel: Kernel, kernels: Kernels, saved: Arrays, gradients: Arrays) -> Arrays:
    del kernels
    return jax.vjp(kernel.formula, *saved)[1](gradients)


@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _unwrapped(kernel: Kernel, kernels: Kernels, *arrays: jax.Array) -> Arrays:
    axes = varying_axes(arrays)
    if kernels == "interpreter":
        # The interpreter's loop cannot be typed within `jax.shard_map`, unless check_vma is False.
        return kernel.formula(*arrays) if axes else _independent(kernel, "interpreter", *arrays)
    programs = {
        "cuda": partial(_independent, kernel, "triton"),
        "tpu": partial(_independent, kernel, "mosaic"),
        "default": kernel.formula,
    }
    return jax.lax.platform_dependent(
        *arrays,
        **{
            name: lambda *arrays, program=program: vary_over(axes, program(*arrays))
            for name, program in programs.items()
        },
    )


run = custom_gradient(_forward, _backward, static=(0, 1))(_unwrapped)
"""Run ``run(kernel, kernels, *arrays)``: arguments and results are those of `Kernel.formula`.

``kernels`` is what `resnet_jax.ops.platform.chosen_kernels` returns, and not ``"off"``.  The
derivative, which only second derivatives of a network need, is that of the formula.
"""


def _independent(kernel: Kernel, target: Target, *arrays: jax.Array) -> Arrays:
    """Run a kernel on all examples, which may be batched by `jax.vmap` and shared by devices."""

    @custom_vmap
    def computed(*arrays: jax.Array) -> Arrays:
        if within_shard_map():
            return kernel.compiled(target, *arrays)
        return tuple(_partitioned(kernel, target, *arrays))

    @computed.def_vmap
    def _(size: int, batched: Sequence[bool], *arrays: jax.Array) -> tuple[Arrays, Any]:
        # The new axis becomes part of the axis of examples, whose number then is that of vectors.
        *images, vectors = (
            x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
            for x, is_batched in zip(arrays, batched, strict=True)
        )
        number = images[0].shape[1]
        vectors = jnp.broadcast_to(vectors, (size, number, *vectors.shape[2:]))
        results = computed(*(x.reshape(-1, *x.shape[2:]) for x in (*images, vectors)))
        return tuple(x.reshape(size, number, *x.shape[1:]) for x in results), (True,) * len(results)

    return computed(*arrays)


@partial(custom_partitioning, static_argnums=(0, 1))
def _partitioned(kernel: Kernel, target: Target, *arrays: jax.Array) -> list[jax.Array]:
    return list(kernel.compiled(target, *arrays))


def _rule(
    kernel: Kernel, target: Target, mesh: Mesh, operands: Sequence[Any], results: Sequence[Any]
) -> tuple[str, dict[str, Any]]:
    """Return which axes of operands and results belong together, for Shardy."""
    del target, mesh
    *images, vectors = operands
    per_example = vectors.shape[0] == images[0].shape[0]
    image, others = "n p c", "n l c" if per_example else "v l c"
    result = "n s c" if kernel.part is Pass.SUMS else image
    rule = f"{', '.join([image] * len(images))}, {others} -> {', '.join([result] * len(results))}"
    # Shardy wants them in the order in which they occur.
    whole = tuple(factor for factor in "pls" if f" {factor} " in rule)
    return rule, {"need_replication_factors": whole}


def _partition(
    kernel: Kernel, target: Target, mesh: Mesh, arrays: Any, results: Any
) -> tuple[Mesh, Any, Any, Any]:
    """Return the program of one device, and the shardings of its operands and results.

    Raises:
        NotImplementedError: the program has no mesh.
    """
    x, vectors = arrays[0], arrays[-1]
    if not isinstance(x.sharding, NamedSharding):
        raise NotImplementedError(
            f"fused_normalization needs arrays whose sharding is a NamedSharding over a mesh, but "
            f"found {x.sharding}; leave it off, or place the arrays with a NamedSharding"
        )
    examples, _, channels = (*x.sharding.spec, None, None, None)[:3]
    of_images = NamedSharding(mesh, PartitionSpec(examples, None, channels))
    shared = vectors.shape[0] != x.shape[0]
    of_vectors = NamedSharding(mesh, PartitionSpec(None if shared else examples, None, channels))
    operands = (of_images,) * (len(arrays) - 1) + (of_vectors,)
    program = partial(kernel.compiled, target)
    return mesh, lambda *arrays: list(program(*arrays)), [of_images] * len(results), operands


_partitioned.def_partition(_partition, sharding_rule=_rule)
