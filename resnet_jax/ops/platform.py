"""The choice between two ways to compute the same numbers, made for each platform.

XLA's CPU backend and its accelerator backends are fast at different programs.  An operation of this
package states both programs, and `by_platform` keeps the one that suits the platform for which JAX
lowers the computation.  So a computation exported for several platforms contains the right program
for each, whichever machine traced it.

The settings in this module are read while JAX traces.  A function that `jax.jit` has already traced
does not change.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.export

from resnet_jax.ops.manual_axes import partly_manual, vary_over, varying_axes

Formulation = Literal["parts", "convolution", "product", "space_to_depth"]
Program = Literal["cpu", "default", "by platform"]
Kernels = Literal["off", "accelerator", "interpreter"]

_formulation: ContextVar[Formulation | None] = ContextVar("formulation", default=None)
_kernels: ContextVar[Kernels] = ContextVar("kernels", default="off")
_devices: ContextVar[int] = ContextVar("devices", default=1)
_platform: ContextVar[str | None] = ContextVar("platform", default=None)


@contextmanager
def formulation(name: Formulation) -> Iterator[None]:
    """Compute convolutions and pooling in one way on every platform.

    Results are equal to rounding.  Without this setting, CPUs use ``"parts"`` and all other
    platforms use ``"convolution"``.

    Args:
        name: ``"parts"`` uses the programs that are fast on CPUs.  ``"convolution"`` uses XLA's own
            convolutions and pooling.  ``"product"`` computes 1x1 convolutions as matrix products,
            and everything else as ``"convolution"`` does.  ``"space_to_depth"`` computes the 7x7
            stem of ImageNet networks on squares of 2x2 pixels, and everything else as
            ``"convolution"`` does.
    """
    token = _formulation.set(name)
    try:
        yield
    finally:
        _formulation.reset(token)


def chosen_formulation() -> Formulation | None:
    """Return the formulation that `formulation` set, or None if the platform decides."""
    return _formulation.get()


@contextmanager
def fused_normalization(kernels: Kernels = "accelerator") -> Iterator[None]:
    """Compute BatchNorm, the addition of a shortcut and ReLU in one hand-written kernel.

    See `resnet_jax.ops.normalization_kernels`.  Results are equal to rounding.  The kernels are off
    without this setting, because nobody has measured yet whether they are faster than what XLA
    fuses by itself.

    Args:
        kernels: ``"accelerator"`` uses the kernels on CUDA GPUs and TPUs, and XLA's operations on
            all other platforms.  ``"interpreter"`` runs the kernels for GPUs in Pallas's
            interpreter on every platform, which is slow and meant for tests.  ``"off"`` uses XLA's
            operations everywhere.
    """
    token = _kernels.set(kernels)
    try:
        yield
    finally:
        _kernels.reset(token)


def kernels_are_on() -> bool:
    """Return whether `fused_normalization` has turned kernels on, for this or another platform."""
    return _kernels.get() != "off"


def chosen_kernels(x: jax.Array, *others: jax.Array) -> Kernels:
    """Return where kernels are used for an array, under the current setting.

    They are used nowhere if a size is symbolic, if an array has a sharding in its type
    (`jax.sharding.AxisType.Explicit`), if some but not all axes of the mesh are manual, or if the
    trainer has stated that it computes on CPUs.  As for `chosen_program`, an operation asks once.

    Args:
        x: any array.
        others: the other operands.
    """
    kernels = _kernels.get()
    if kernels == "off" or (kernels == "accelerator" and stated_platform() == "cpu"):
        return "off"
    symbolic = any(jax.export.is_symbolic_dim(size) for y in (x, *others) for size in y.shape)
    explicit = any(any(jax.typeof(y).sharding.spec) for y in (x, *others))
    return "off" if symbolic or explicit or partly_manual() else kernels


def has_symbolic_pixels(x: jax.Array) -> bool:
    """Return whether the height or width of [B, H, W, C] is a symbolic dimension of `jax.export`.

    Such a size cannot be compared with a number.
    """
    return any(jax.export.is_symbolic_dim(pixels) for pixels in x.shape[1:3])


def chosen_program(x: jax.Array, *others: jax.Array) -> Program:
    """Return which program `by_platform` is to use for images under the current formulation.

    The programs for CPUs depend on the size of the images, and they leave it to XLA how to shard
    what they compute.  They are not used if the size is symbolic, or if an array has a sharding in
    its type (`jax.sharding.AxisType.Explicit`).

    Gradients are traced after the functions that they belong to, perhaps under another setting.
    An operation therefore asks once, when it is called, and hands the answer to both rules.

    Args:
        x: [B, H, W, C].
        others: the other operands.
    """
    if has_symbolic_pixels(x) or any(any(jax.typeof(y).sharding.spec) for y in (x, *others)):
        return "default"
    name, platform = chosen_formulation(), stated_platform()
    if name is not None:
        return "cpu" if name == "parts" else "default"
    if platform is not None:
        return "cpu" if platform == "cpu" else "default"
    return "by platform"


@contextmanager
def devices(number: int, platform: str | None = None) -> Iterator[None]:
    """State for which devices a computation is traced, as the trainer does.

    Results do not depend on it, and neither does correctness.  It lets the gradients of kernels use
    batch slices to which every device contributes equally, and lets devices merge all-reduces.

    Args:
        number: number of devices that the batch axis is sharded over.  Without this setting it is
            1.
        platform: platform of all of them, such as ``"cpu"``.  The traced computation then contains
            the program for this platform alone, and a loop over blocks keeps what suits it.  None
            leaves both to the platform that JAX lowers for.
    """
    tokens = _devices.set(number), _platform.set(platform)
    try:
        yield
    finally:
        _devices.reset(tokens[0])
        _platform.reset(tokens[1])


def num_devices() -> int:
    """Return the number of devices that `devices` set, 1 by default."""
    return _devices.get()


def stated_platform() -> str | None:
    """Return the platform that `devices` stated, or None."""
    return _platform.get()


def by_platform(
    *args: Any, cpu: Callable[..., Any], default: Callable[..., Any], program: Program
) -> Any:
    """Return ``cpu(*args)`` on CPUs and ``default(*args)`` on all other platforms.

    Both functions must return arrays of the same shapes and dtypes.  Call this inside the rules of
    a custom gradient, not around them: JAX then never differentiates the choice, and both programs
    share their residuals.

    Args:
        args: arrays, or trees of arrays.
        cpu: the program for CPUs.
        default: the program for all other platforms.
        program: ``"cpu"`` or ``"default"`` uses that program on every platform; see
            `chosen_program`.
    """
    match program:
        case "cpu":
            return cpu(*args)
        case "default":
            return default(*args)
    axes = varying_axes(args)
    return jax.lax.platform_dependent(
        *args,
        cpu=lambda *args: vary_over(axes, cpu(*args)),
        default=lambda *args: vary_over(axes, default(*args)),
    )
