"""Convolutions, pooling and other functions that all networks are built from.

Arrays are NHWC and kernels are HWIO.  Padding is explicit and symmetric, as in PyTorch.  With
stride 2, ``SAME`` would pad only the bottom and the right, and published PyTorch weights would give
different results.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.ops import convolution, pooling
from resnet_jax.ops.platform import has_symbolic_pixels

# Number of input channels from which FFCV and Composer blur: all but those of an image.
_FEWEST_BLURRED = 16

Conv = Callable[..., nn.Module]
"""Builds a convolution from (features, kernel_size, stride, *, dilation, groups, name)."""

Norm = Callable[..., nn.Module]
"""Builds a normalization layer from (*, scale_init, name).  The layer takes (x, *, train)."""

Activation = Callable[[jax.Array], jax.Array]
"""Maps an array to an array of the same shape."""

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""The convolution initializer of torchvision: ``kaiming_normal_(mode="fan_out")``."""

torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for ``nn.Linear`` weights: uniform in ``+-1 / sqrt(fan_in)``."""


def uniform_scale(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Return numbers that are uniform in [0, 1), which Composer's ``bn_uniform`` gives to scales.

    It is a plain function, so that a network that has it as a field can be pickled.
    """
    return jax.random.uniform(key, shape, dtype)


def fan_in_kernel(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Return a normal kernel with variance 2 / fan_in (He et al. 2015, arXiv:1502.01852).

    This is PyTorch's ``kaiming_normal_(mode="fan_in")``, which NVIDIA's ResNet uses.
    """
    return nn.initializers.variance_scaling(2.0, "fan_in", "normal")(key, shape, dtype)


def relu(x: jax.Array) -> jax.Array:
    """Return max(x, 0) for each element.

    This is `jax.nn.relu` as a plain function.  `jax.nn.relu` itself cannot be pickled, so a network
    that has it as a field could not be either.
    """
    return nn.relu(x)


def identity(x: jax.Array) -> jax.Array:
    """Return x: the activation of networks whose normalization layers activate."""
    return x


def conv(
    features: int,
    kernel_size: int,
    stride: int = 1,
    *,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    padding: Literal["symmetric", "same"] = "symmetric",
    kernel_init: nn.initializers.Initializer = he_normal_fan_out,
    convolve: Callable[..., jax.Array] = convolution.convolve,
    dtype: Any = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """Return a convolution with a square kernel, padded so that the image stays centered.

    It has eleven parameters because blocks build every convolution through this one function.

    Args:
        features: number of output channels.
        kernel_size: height and width of the kernel in pixels, odd.
        stride: stride in pixels along height and width.
        dilation: distance between neighboring taps of the kernel, in pixels.
        groups: number of groups that the channels are split into (Xie et al. 2016).
        use_bias: whether to add a bias.
        padding: ``"symmetric"`` pads as PyTorch does, ``"same"`` as TensorFlow does.  If the number
            of padded pixels is odd, TensorFlow adds the extra pixel at the bottom and the right.
        kernel_init: initializer of the kernel.
        convolve: computes the convolution, with the arguments of `jax.lax.conv_general_dilated`.
        dtype: compute type.
        name: name of the module.

    Returns:
        A module that maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), features].
    """
    return nn.Conv(
        features,
        kernel_size=(kernel_size, kernel_size),
        strides=(stride, stride),
        padding="SAME" if padding == "same" else dilation * (kernel_size - 1) // 2,
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        conv_general_dilated=convolve,
        name=name,
    )


def blurred_conv(*arguments: Any, **options: Any) -> nn.Conv:
    """Return `conv`, with a blur of its input if it has a stride: BlurPool of FFCV and Composer.

    The input of a strided convolution passes through `blur` if it has 16 channels or more, so that
    the stem reads sharp images.  Zhang 2019 blurs the output of a convolution without a stride
    instead, see `blur_pool`, which takes four times as many operations.  There are no additional
    parameters.

    Args:
        *arguments: as for `conv`.
        **options: as for `conv`, without ``convolve``.
    """
    return conv(*arguments, convolve=_blur_and_convolve, **options)


def _blur_and_convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], *arguments: Any, **options: Any
) -> jax.Array:
    if max(strides) > 1 and x.shape[-1] >= _FEWEST_BLURRED:
        x = blur(x)
    return convolution.convolve(x, kernel, strides, *arguments, **options)


class StandardizedConv(nn.Module):
    """A convolution whose kernel is standardized per output channel (Qiao et al. 2019).

    As in BiT, the variance is the biased one (1 / n), and 1e-8 is added to it.  Shapes are the same
    as for `conv`.

    Attributes:
        features: number of output channels.
        kernel_size: height and width of the kernel in pixels, odd.
        stride: stride in pixels along height and width.
        dilation: distance between neighboring taps of the kernel, in pixels.
        groups: number of groups that the channels are split into.
        epsilon: number that is added to the variance of the kernel.
        kernel_init: initializer of the kernel before it is standardized.
        dtype: compute type.
    """

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    epsilon: float = 1e-8
    kernel_init: nn.initializers.Initializer = he_normal_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        return _convolve(self, x, standardized(kernel, self.epsilon))


class ScaledStandardizedConv(nn.Module):
    """A convolution for networks without normalization (Brock et al. 2021, section 4).

    The kernel is standardized per output channel, as in `StandardizedConv`, and multiplied by
    ``gain * gamma / sqrt(fan_in)``.  ``gain`` is learned, and ``gamma`` undoes the reduction of the
    variance by the activation before the convolution.  The output then has the variance of the
    input of the activation.  Shapes are the same as for `conv`.  As in timm, every such convolution
    has a bias, and the first one, which reads the image, is scaled like the others.

    Attributes:
        features: number of output channels.
        kernel_size: height and width of the kernel in pixels, odd.
        stride: stride in pixels along height and width.
        dilation: dilation of the kernel in pixels.
        groups: number of groups that the channels are split into.
        act: activation of the network, from which ``gamma`` follows.
        gamma: the factor itself.  None looks it up in a table of activations.
        epsilon: number that is added to the variance of the kernel.
        gain_init: initializer of the gain.
        dtype: compute type.

    Raises:
        ValueError: ``gamma`` is None and the table does not have the activation.
    """

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    act: Activation = relu
    gamma: float | None = None
    epsilon: float = 1e-5
    gain_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        gain = self.param("gain", self.gain_init, (self.features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        gamma = gamma_of(self.act) if self.gamma is None else self.gamma
        factor = (gain * (gamma / math.sqrt(math.prod(shape[:3])))).reshape(1, 1, 1, -1)
        y = _convolve(self, x, standardized(kernel, self.epsilon) * factor)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def is_scaled(conv: Conv) -> bool:
    """Return whether ``conv`` builds a `ScaledStandardizedConv`.

    Such a convolution needs to know the activation, and its output is zero if its gain is.
    """
    return getattr(conv, "func", conv) is ScaledStandardizedConv


_GAMMAS: dict[Activation, float] = {
    relu: 1.7139588594436646,
    nn.relu: 1.7139588594436646,
    nn.leaky_relu: 1.70590341091156,
    nn.silu: 1.7881293296813965,
    nn.gelu: 1.7015043497085571,
    nn.elu: 1.2716004848480225,
}
"""1 / standard deviation of each activation of standard normal numbers.

The numbers are those of https://github.com/deepmind/deepmind-research/tree/master/nfnets and timm,
which were measured on random numbers: the exact value for ReLU is 1.7129."""


def gamma_of(act: Activation) -> float:
    """Return the factor that restores unit variance after an activation.

    Raises:
        ValueError: the factor of this activation is not known.
    """
    if act not in _GAMMAS:
        raise ValueError(
            f"ScaledStandardizedConv has no gamma for the activation {act!r}; give "
            "conv=partial(ScaledStandardizedConv, gamma=...), 1 / its standard deviation on "
            "standard normal numbers"
        )
    return _GAMMAS[act]


def standardized(kernel: jax.Array, epsilon: float) -> jax.Array:
    """Return a kernel [H, W, I, O] with mean 0 and variance 1 for each output channel.

    The variance is the biased one (1 / n), and ``epsilon`` is added to it.
    """
    kernel = kernel - jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
    variance = jnp.mean(kernel**2, axis=(0, 1, 2), keepdims=True)
    return kernel * jax.lax.rsqrt(variance + epsilon)


def _convolve(
    layer: StandardizedConv | ScaledStandardizedConv, x: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Convolve with a kernel that a layer has computed from its parameters."""
    padding = layer.dilation * (layer.kernel_size - 1) // 2
    return convolution.convolve(
        x.astype(layer.dtype),
        kernel.astype(layer.dtype),
        (layer.stride, layer.stride),
        ((padding, padding), (padding, padding)),
        rhs_dilation=(layer.dilation, layer.dilation),
        feature_group_count=layer.groups,
    )


def max_pool(x: jax.Array, stride: int = 2) -> jax.Array:
    """Apply 3x3 max-pooling with a padding of one pixel.

    Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].
    """
    return pooling.max_pool(x, 3, stride, ((1, 1), (1, 1)))


def same_max_pool(x: jax.Array) -> jax.Array:
    """Apply `max_pool` with stride 2 and the padding of TensorFlow; see `conv`."""
    return pooling.max_pool(x, 3, 2, "SAME")


def zero_padded_max_pool(x: jax.Array) -> jax.Array:
    """Apply `max_pool` with stride 2 to an image that is padded with zeros, as in BiT."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return pooling.max_pool(padded, 3, 2, "VALID")


def global_max_pool(x: jax.Array) -> jax.Array:
    """Return the largest value of each channel.

    Its gradient goes to the first pixel with that value, as in PyTorch.  That of `jax.numpy.max`
    compares the values with the maximum again, and is NaN where XLA rounds the two differently.
    Maps [B, H, W, C] to [B, C].
    """
    pixels = x.reshape(x.shape[0], -1, x.shape[-1])
    places = jnp.argmax(pixels, axis=1, keepdims=True)
    return jnp.take_along_axis(pixels, places, axis=1)[:, 0]


def average_pool(x: jax.Array, stride: int = 2) -> jax.Array:
    """Return the mean of each square of stride x stride pixels.

    Incomplete squares at the bottom and the right are dropped.  Maps [B, H, W, C] to
    [B, floor(H/stride), floor(W/stride), C].

    Raises:
        ValueError: the image is smaller than one square.
    """
    _check_pixels(x, stride, "averaged over squares")
    return average_windows(x, stride, stride)


def average_windows(
    x: jax.Array,
    size: int,
    stride: int,
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    *,
    count_padding: bool = True,
) -> jax.Array:
    """Return the mean of each window, in the type of the images.

    This is `flax.linen.avg_pool` without its divisor of another type, which
    ``jax_numpy_dtype_promotion="strict"`` refuses.

    Args:
        x: [B, H, W, C].
        size: height and width of the windows, in pixels.
        stride: distance between windows, in pixels.
        padding: zeros added (before, after) height and width.
        count_padding: let these zeros count in the mean.
    """

    def total(x: jax.Array) -> jax.Array:
        return nn.pool(x, 0.0, jax.lax.add, (size, size), (stride, stride), padding)

    if count_padding:
        return total(x) / size**2
    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def centered_average_pool(x: jax.Array, stride: int) -> jax.Array:
    """Return the mean of 3x3 windows with a padding of one pixel; zeros of the padding count.

    Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].
    """
    return average_windows(x, 3, stride, ((1, 1), (1, 1)))


def blur_pool(x: jax.Array, stride: int = 2) -> jax.Array:
    """Blur with a binomial 3x3 filter, then subsample (Zhang 2019).

    The image is padded by reflection.  Maps [B, H, W, C] to
    [B, ceil(H/stride), ceil(W/stride), C].

    Raises:
        ValueError: the image has fewer than two pixels along an axis, so it cannot be reflected.
    """
    _check_pixels(x, 2, "blurred")
    return _binomial(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"), stride)


def blur(x: jax.Array, stride: int = 1) -> jax.Array:
    """Apply a binomial 3x3 filter to an image that is padded with zeros, as FFCV and Composer do.

    Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].
    """
    return _binomial(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), stride)


def _binomial(x: jax.Array, stride: int) -> jax.Array:
    """Apply the filter (1, 2, 1) / 4 along height and width to a padded image, then subsample."""
    x = subsample(x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:], stride, axes=(1,)) / 4
    return subsample(x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:], stride, axes=(2,)) / 4


def subsample(x: jax.Array, stride: int, axes: tuple[int, ...] = (1, 2)) -> jax.Array:
    """Return every stride-th pixel along the axes of [B, H, W, C].

    Its size is written as that of a strided convolution is, ``(H - 1) // stride + 1``.  JAX cannot
    prove that the size of ``x[:, ::stride]`` is equal if H is symbolic.
    """
    for axis in axes:
        x = jax.lax.slice_in_dim(x, 0, x.shape[axis], stride, axis)
    return x


def _check_pixels(x: jax.Array, least: int, what: str) -> None:
    if not has_symbolic_pixels(x) and min(x.shape[1:3]) < least:
        raise ValueError(
            f"the images are too small: a feature map of {x.shape[1]}x{x.shape[2]} pixels cannot "
            f"be {what}; give larger images, or small_input=True"
        )


def blurred_max_pool(x: jax.Array) -> jax.Array:
    """Apply `max_pool` with stride 1, and subsample with `blur_pool`."""
    return blur_pool(max_pool(x, stride=1))


def zero_padded_blurred_max_pool(x: jax.Array) -> jax.Array:
    """Apply `max_pool` with stride 1, and subsample with `blur`, as Composer's BlurPool does."""
    return blur(max_pool(x, stride=1), stride=2)


def drop_block(
    x: jax.Array, key: jax.Array, *, rate: float, size: int, gamma_scale: float = 1.0
) -> jax.Array:
    """Set random squares of each image to zero in all channels (DropBlock, Ghiasi et al. 2018).

    As in timm, each pixel is the center of a square with the probability
    ``gamma_scale * rate / size**2 * H * W / ((H - size + 1) * (W - size + 1))``, and the other
    pixels are multiplied by one factor for the whole batch, which keeps the mean of the mask at 1.

    Args:
        x: float[B, H, W, C].
        key: PRNG key.
        rate: share of the pixels that is dropped, about, 0 to below 1.
        size: height and width of the squares in pixels.  A smaller image bounds them.
        gamma_scale: factor of the probability.
    """
    batch, height, width, _ = x.shape
    rows, columns = min(size, height), min(size, width)
    places = (height - rows + 1) * (width - columns + 1)
    gamma = gamma_scale * rate * height * width / (rows * columns * places)
    centers = jax.random.bernoulli(key, min(gamma, 1.0), (batch, height, width, 1))
    kept = 1 - nn.max_pool(
        centers.astype(jnp.float32),
        (rows, columns),
        padding=[((side - 1) // 2, side // 2) for side in (rows, columns)],
    )
    # As in timm, the small number keeps the factor finite where every pixel is dropped.
    factor = kept.size / (jnp.sum(kept) + 1e-7)
    return x * (kept * factor).astype(x.dtype)


def drop_path(x: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """Set random examples to zero (stochastic depth, Huang et al. 2016).

    The other examples are multiplied by 1 / (1 - rate).

    Args:
        x: float[B, H, W, C].
        rate: float[], the probability that an example becomes zero, from 0 to below 1.
        key: PRNG key.
    """
    kept = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1, 1))
    # A product, because `jnp.where` would not accept explicitly sharded images.
    return x / jnp.asarray(1 - rate, x.dtype) * kept.astype(x.dtype)
