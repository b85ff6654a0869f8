"""Normalization layers, each called with (x, *, train).

A network builds its layers by calling ``norm``, a layer class or a `functools.partial` of one.
``norm(parent=None)`` builds a layer that belongs to no network.  Its fields and the class attribute
``leaves`` tell what the layers of the network are like.  A layer with ``activates`` contains its
activation.
"""

import math
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.layers import Activation, Norm, relu
from resnet_jax.ops.batch_norm import (
    AxisName,
    Statistics,
    affine,
    mean_over_groups,
    normalize,
)
from resnet_jax.ops.fused_batch_norm import Fusion, fused_affine, fused_normalize
from resnet_jax.ops.gradients import gradients_are_automatic
from resnet_jax.ops.platform import Kernels, chosen_kernels, kernels_are_on

Leaves = tuple[tuple[str, str], ...]
"""The collection and the name of each variable of a layer; every variable is float32[C]."""

_ZEROS = nn.initializers.zeros

_KERNEL_TYPES = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe and Szegedy 2015) over declared groups of examples.

    Statistics are computed and kept in float32 whatever the compute type.  Under `jax.jit` the
    batch axis is the global batch: the statistics depend on ``group_size`` and never on the number
    of devices.  Groups that do not cross device boundaries need no communication.  Within
    `jax.pmap` and `jax.shard_map` a layer sees the batch of one device, and ``axis_name`` names the
    devices that share statistics, as in `flax.linen.BatchNorm`.

    ``momentum`` follows Flax: it is the fraction of the running value that is kept (0.9), which
    PyTorch calls 0.1.  The running variance is the biased one.  PyTorch stores the unbiased one,
    which is larger by n / (n - 1) for n values per channel.

    Attributes:
        momentum: fraction of the running statistics that a training step keeps, 0 to 1.
        epsilon: added to the variance.
        group_size: number of consecutive examples that share their statistics in training.  None
            uses the whole batch.  The running statistics use the mean over the groups.
        frozen: use the running statistics in training too, without updating them.  Scale and bias
            remain trainable.  A tuple of module paths within the network, such as
            ``("stem/norm", "stage1/block1/norm1")``, freezes the layers at these paths only.
        axis_name: name, or tuple of names, of the axes of `jax.pmap` or `jax.shard_map` whose
            devices share the statistics.  None uses the batch of each device alone.
        axis_index_groups: groups of indices along the axis, such as ``((0, 1), (2, 3))``, whose
            devices share the statistics.  None shares them between all devices of the axis.
        use_fast_variance: compute the variance as E[x^2] - E[x]^2, in one pass.  The error of the
            normalized values is about 1e-7 (mean / std)^2, which is too much for inputs whose mean
            is hundreds of times their standard deviation.  False takes a second pass, as PyTorch
            does.
        scale_init: initializer of the scale.
        dtype: type of the output.
    """

    leaves: ClassVar[Leaves] = (
        ("params", "scale"),
        ("params", "bias"),
        ("batch_stats", "mean"),
        ("batch_stats", "var"),
    )

    momentum: float = 0.9
    epsilon: float = 1e-5
    group_size: int | None = None
    frozen: bool | tuple[str, ...] = False
    axis_name: AxisName = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None
    use_fast_variance: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.axis_index_groups is not None:
            # Lists, as Flax takes them, could not be hashed.
            self.axis_index_groups = tuple(tuple(group) for group in self.axis_index_groups)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool,
        mask: jax.Array | None = None,
        shortcut: jax.Array | None = None,
        activate: bool = False,
    ) -> jax.Array:
        """Normalize over all axes but the last, add a shortcut and apply ReLU.

        Args:
            x: float[B, ..., C].
            train: use the statistics of the groups and update the running ones, unless the layer is
                frozen.
            mask: bool[B], which examples count in the statistics.  None counts all.
            shortcut: dtype[B, ..., C], which is added to the normalized array.  None adds nothing.
            activate: apply ReLU at the end.

        Returns:
            dtype[B, ..., C].

        Raises:
            ValueError: the batch does not consist of whole groups, or the layer has both groups of
                examples and an axis of devices.
        """
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        fusion = Fusion(activate, self._kernels(x, shortcut, activate=activate), self.dtype)
        if self._is_frozen() or not train:
            factor = jax.lax.rsqrt(running_var.value + self.epsilon) * scale
            if fusion.kernels != "off":
                return fused_affine(x, running_mean.value, factor, bias, shortcut, fusion)
            y = affine(x, running_mean.value, factor, bias).astype(self.dtype)
            return _finished(y, shortcut, activate=activate)

        grouped = self.group_size not in (None, x.shape[0])
        # A single group gets no axis: XLA would recompute the input of the reshape after it.
        groups, weights = self._groups(x, mask) if grouped else (x, mask)
        statistics = self._statistics(batch_axis=int(grouped))
        if fusion.kernels == "off":
            y, *moments = normalize(groups, scale, bias, weights, statistics, self.dtype)
        else:
            added = None if shortcut is None else shortcut.reshape(groups.shape)
            y, *moments = fused_normalize(groups, scale, bias, weights, added, statistics, fusion)
        if not self.is_initializing():
            for running, value in zip((running_mean, running_var), moments, strict=True):
                new = jax.lax.stop_gradient(value)
                new = mean_over_groups(new, weights) if grouped else new.reshape(channels)
                running.value = self.momentum * running.value + (1 - self.momentum) * new
        y = y.reshape(x.shape)
        return y if fusion.kernels != "off" else _finished(y, shortcut, activate=activate)

    # What it returns is no array, and must not be captured with the intermediate results.
    @nn.nowrap
    def _kernels(self, x: jax.Array, shortcut: jax.Array | None, *, activate: bool) -> Kernels:
        """Return where kernels are used; ``"off"`` if there are none for these arguments."""
        if not kernels_are_on():
            return "off"
        arrays = (x,) if shortcut is None else (x, shortcut)
        has_kernel = (
            all(jnp.dtype(dtype) in _KERNEL_TYPES for dtype in (x.dtype, self.dtype))
            and (shortcut is None or (activate and shortcut.dtype == self.dtype))
            and not gradients_are_automatic()
            and 0 not in x.shape
        )
        return chosen_kernels(*arrays) if has_kernel else "off"

    def _statistics(self, batch_axis: int) -> Statistics:
        if self.axis_name is not None and self.group_size is not None:
            raise ValueError(
                f"BatchNorm has group_size={self.group_size} and axis_name={self.axis_name!r}; "
                "give only one of them"
            )
        # Networks are usually initialized outside of the function that has the axis.
        axis_name = None if self.is_initializing() else self.axis_name
        return Statistics(
            self.epsilon,
            batch_axis,
            self.use_fast_variance,
            axis_name,
            self.axis_index_groups,
        )

    def _is_frozen(self) -> bool:
        if isinstance(self.frozen, bool):
            return self.frozen
        # The path begins with that of the network, if the network is part of another module.
        path = "/" + "/".join(self.path)
        return any(path.endswith(f"/{layer}") for layer in self.frozen)

    def _groups(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        """Return x as [G, B / G, ..., C], and the mask as [G, B / G]."""
        batch, size = x.shape[0], self.group_size
        assert size
        if batch % size:
            raise ValueError(
                f"a batch of {batch} images has no whole groups of {size}; change the batch size "
                "or bn_group_size"
            )
        groups = x.reshape(batch // size, size, *x.shape[1:])
        return groups, None if mask is None else mask.reshape(batch // size, size)


class GroupNorm(nn.Module):
    """Group normalization (Wu and He 2018), the same in training and evaluation.

    Statistics are computed in float32, in two passes, first over the image and then over the
    channels, because short sums lose less.  Over the blocks of a BiT network that halves the error
    of `flax.linen.GroupNorm`.  Float[B, H, W, C] to dtype[B, H, W, C].

    Attributes:
        num_groups: number of groups into which the channels are split.  None makes each channel a
            group of its own.
        epsilon: added to the variance.
        scale_init: initializer of the scale.
        dtype: type of the output.

    Raises:
        ValueError: the channels do not make whole groups.
    """

    leaves: ClassVar[Leaves] = (("params", "scale"), ("params", "bias"))

    num_groups: int | None = 32
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        scale, bias = _per_channel(self, x, ("scale", self.scale_init), ("bias", _ZEROS))
        centered = _centered(_groups(self, x))
        normalized = centered * jax.lax.rsqrt(_group_mean(centered**2) + self.epsilon)
        return (normalized.reshape(x.shape) * scale + bias).astype(self.dtype)


InstanceNorm = partial(GroupNorm, num_groups=None)
"""Instance normalization (Ulyanov et al. 2016): each channel of each image by itself."""


class InstanceBatchNorm(nn.Module):
    """Instance normalization of the first half of the channels, and ``norm`` of the others.

    This is the layer of IBN-Net-a (Pan et al. 2018).  Float[B, H, W, C] to the same shape, in the
    type that ``norm`` returns.

    Attributes:
        norm: builds the normalization of the second half, usually `BatchNorm`.
    """

    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        first, second = jnp.split(x, [x.shape[-1] // 2], axis=-1)
        second = self.norm(name="batch")(second, train=train)
        first = InstanceNorm(dtype=second.dtype, name="instance")(first, train=train)
        return jnp.concatenate([first, second], axis=-1)


class EvoNorm(nn.Module):
    """EvoNorm-S0 (Liu et al. 2020), a normalization with its activation.

    Each value x becomes ``x * sigmoid(slope * x) / std * scale + bias``, where ``std`` is the
    standard deviation of a group of channels in one image.  It is only for pre-activation networks.
    Training and evaluation are the same.  Float[B, H, W, C] to dtype[B, H, W, C].

    Attributes:
        num_groups: number of groups into which the channels are split.
        epsilon: added to the variance.
        scale_init: initializer of the scale.
        dtype: type of the output.

    Raises:
        ValueError: the channels do not make whole groups.
    """

    activates: ClassVar[bool] = True
    leaves: ClassVar[Leaves] = (("params", "scale"), ("params", "bias"), ("params", "slope"))

    num_groups: int = 32
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        scale, bias, slope = _per_channel(
            self, x, ("scale", self.scale_init), ("bias", _ZEROS), ("slope", nn.initializers.ones)
        )
        x = x.astype(jnp.float32)
        variance = _group_mean(_centered(_groups(self, x)) ** 2)
        activated = _groups(self, x * nn.sigmoid(x * slope))
        normalized = (activated * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return (normalized * scale + bias).astype(self.dtype)


class FilterResponseNorm(nn.Module):
    """Filter response normalization with a learned threshold (Singh and Krishnan 2019).

    Each channel of each image is divided by its root mean square, and the result of scale and bias
    is ``max(x, threshold)``, which is the activation.  It is only for pre-activation networks.
    Training and evaluation are the same.  Float[B, H, W, C] to dtype[B, H, W, C].

    Attributes:
        epsilon: added to the mean square.
        scale_init: initializer of the scale.
        dtype: type of the output.
    """

    activates: ClassVar[bool] = True
    leaves: ClassVar[Leaves] = (("params", "scale"), ("params", "bias"), ("params", "threshold"))

    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        scale, bias, threshold = _per_channel(
            self, x, ("scale", self.scale_init), ("bias", _ZEROS), ("threshold", _ZEROS)
        )
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(x**2, axis=(1, 2), keepdims=True)
        normalized = x * jax.lax.rsqrt(mean_square + self.epsilon)
        return jnp.maximum(normalized * scale + bias, threshold).astype(self.dtype)


class NoNorm(nn.Module):
    """No normalization, for networks that do without it: float[B, ..., C] to dtype[B, ..., C].

    Attributes:
        scale_init: ignored; accepted because networks give it to every normalization layer.
        dtype: type of the output.
    """

    leaves: ClassVar[Leaves] = ()

    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        return x.astype(self.dtype)


class Shift(nn.Module):
    """A bias, which remains of BatchNorm when its scale is folded into the convolution before it.

    See `resnet_jax.inference.fold`.  Float[B, ..., C] to dtype[B, ..., C].

    Attributes:
        scale_init: ignored; accepted because networks give it to every normalization layer.
        dtype: type of the output.
    """

    leaves: ClassVar[Leaves] = (("params", "bias"),)

    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        bias = jax.lax.expand_dims(bias, range(x.ndim - 1))
        return x.astype(self.dtype) + bias.astype(self.dtype)


def activates_itself(norm: nn.Module, act: Activation) -> bool:
    """Return whether a layer is to compute the activation, and an addition before it, in a kernel.

    See `resnet_jax.ops.platform.fused_normalization`.
    """
    return kernels_are_on() and isinstance(norm, BatchNorm) and act in (relu, nn.relu)


def activated(norm: nn.Module, act: Activation, x: jax.Array, *, train: bool) -> jax.Array:
    """Return ``act(norm(x))``, in one kernel if kernels are on and have this activation."""
    if activates_itself(norm, act):
        return norm(x, train=train, activate=True)
    return act(norm(x, train=train))


def _finished(y: jax.Array, shortcut: jax.Array | None, *, activate: bool) -> jax.Array:
    if shortcut is not None:
        y = y + shortcut
    return relu(y) if activate else y


def _per_channel(
    layer: nn.Module, x: jax.Array, *parameters: tuple[str, nn.initializers.Initializer]
) -> list[jax.Array]:
    """Return parameters of a layer, float32[C] each, with leading axes so that they fit x."""
    return [
        jax.lax.expand_dims(layer.param(name, init, (x.shape[-1],), jnp.float32), range(x.ndim - 1))
        for name, init in parameters
    ]


def _groups(layer: "GroupNorm | EvoNorm", x: jax.Array) -> jax.Array:
    """Return [B, H, W, C] as float32[B, H, W, G, C / G], where G is the number of groups.

    Raises:
        ValueError: the channels do not make whole groups.
    """
    name, channels = type(layer).__name__, x.shape[-1]
    num_groups = channels if layer.num_groups is None else layer.num_groups
    if channels % num_groups:
        raise ValueError(
            f"{name} cannot split {channels} channels into {num_groups} groups; give "
            f"norm=partial({name}, num_groups={math.gcd(channels, num_groups)})"
        )
    return x.astype(jnp.float32).reshape(*x.shape[:-1], num_groups, channels // num_groups)


def _group_mean(groups: jax.Array) -> jax.Array:
    """Return the mean over an image and the channels of a group: float32[B, 1, 1, G, 1]."""
    # Two short sums lose less than a long one.
    return jnp.mean(jnp.mean(groups, axis=(1, 2), keepdims=True), axis=-1, keepdims=True)


def _centered(groups: jax.Array) -> jax.Array:
    return groups - _group_mean(groups)
