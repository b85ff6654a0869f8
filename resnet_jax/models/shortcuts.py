"""Shortcuts of blocks whose input and output differ in shape."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp

from resnet_jax.models.layers import Conv, Norm, average_windows, subsample


class Shortcut(nn.Module):
    """The fields that all shortcuts share.

    A shortcut maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), features].

    Attributes:
        features: number of output channels.
        stride: stride in pixels.
        dilation: dilation of the block in pixels; above 1 where dilation replaces a stride.
        first_dilation: dilation of the first 3x3 convolution of the block, in pixels.
        preactivation: leave the normalization to the next block.
        conv: builds a convolution.
        norm: builds a normalization layer.
    """

    features: int
    stride: int
    dilation: int
    preactivation: bool
    conv: Conv
    norm: Norm
    first_dilation: int = 1

    def project(
        self, x: jax.Array, stride: int, *, train: bool, kernel_size: int = 1, dilation: int = 1
    ) -> jax.Array:
        """Apply a convolution and normalize its output.

        In a pre-activation network there is only the convolution.
        """
        x = self.conv(self.features, kernel_size, stride, dilation=dilation, name="conv")(x)
        return x if self.preactivation else self.norm(name="norm")(x, train=train)


class ProjectionShortcut(Shortcut):
    """A 1x1 convolution and normalization: option B of He et al. 2015."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.project(x, self.stride, train=train)


class SpatialShortcut(Shortcut):
    """A 3x3 convolution and normalization (SENet-154, Hu et al. 2017).

    Its kernel is 1x1 in a block that has neither a stride nor a dilation.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        pointwise = self.stride == 1 and self.dilation == 1
        kernel_size, dilation = (1, 1) if pointwise else (3, self.first_dilation)
        return self.project(x, self.stride, train=train, kernel_size=kernel_size, dilation=dilation)


class AveragePoolShortcut(Shortcut):
    """2x2 average pooling before the projection: ResNet-D (He et al. 2018, figure 2c).

    As in timm, a window that reaches beyond the image is averaged over the pixels inside the image.
    Where dilation replaces the stride, the zeros outside the image are averaged too.
    """

    pooled_from: ClassVar[int] = 2
    """Smallest dilation with which the input is pooled without a stride."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.stride > 1:
            # The last pixel of an odd size needs padding; to pad an even size changes nothing.
            rows, columns = (
                (0, 1 if jax.export.is_symbolic_dim(size) else size % 2) for size in x.shape[1:3]
            )
            x = average_windows(x, 2, 2, (rows, columns), count_padding=False)
        elif self.dilation >= self.pooled_from:
            x = average_windows(x, 2, 1, ((0, 1), (0, 1)))
        return self.project(x, 1, train=train)


class PooledShortcut(AveragePoolShortcut):
    """2x2 average pooling in place of the stride, before the projection: CLIP.

    It differs from `AveragePoolShortcut` where dilation replaces the stride: as in timm, the first
    stage of dilated convolutions, whose dilation is 2, has no pooling.
    """

    pooled_from: ClassVar[int] = 3


class PadShortcut(Shortcut):
    """Subsampling and zero channels, without parameters: option A of He et al. 2015.

    Half of the zero channels are added before the channels of the input and half after them, as in
    the PyTorch CIFAR networks whose weights are published (akamaster/pytorch_resnet_cifar10).
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # This shortcut has no statistics.
        x = subsample(x, self.stride)
        missing = self.features - x.shape[-1]
        before = missing // 2
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))
