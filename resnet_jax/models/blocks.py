"""Residual blocks: ``relu(F(x) + shortcut(x))``."""

from typing import ClassVar

import flax.linen as nn
import jax

from resnet_jax.models.layers import Conv, Norm, PadShortcut, ProjectionShortcut


class ResidualBlock(nn.Module):
    """What the blocks of every variant are given.

    Attributes:
        features: channels of the inner convolutions; the block returns ``expansion`` times as many.
        stride: step of the block in pixels, 1 or 2.
        conv: builds a convolution from (features, kernel_size, stride).
        norm: builds a normalisation layer.
        shortcut: used where input and output differ in shape; elsewhere the input is added as is.
        zero_init_residual: start the scale of the last normalisation at zero, so that every block
            starts as the identity (Goyal et al. 2017, section 5.1).
    """

    expansion: ClassVar[int] = 1

    features: int
    stride: int
    conv: Conv
    norm: Norm
    shortcut: type[ProjectionShortcut] | type[PadShortcut] = ProjectionShortcut
    zero_init_residual: bool = False

    def last_norm(self, name: str) -> nn.Module:
        """The normalisation just before the addition."""
        if self.zero_init_residual:
            return self.norm(scale_init=nn.initializers.zeros, name=name)
        return self.norm(name=name)

    def add_shortcut(self, x: jax.Array, residual: jax.Array, *, train: bool) -> jax.Array:
        """``relu(residual + shortcut(x))``, in the shape of ``residual``."""
        if x.shape != residual.shape:
            x = self.shortcut(
                residual.shape[-1], self.stride, self.conv, self.norm, name="shortcut"
            )(x, train=train)
        return nn.relu(residual + x)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al. 2015, figure 5 left).

    [B, H, W, C] to [B, H/stride, W/stride, features].
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = self.conv(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y, train=train))
        y = self.conv(self.features, 3, name="conv2")(y)
        y = self.last_norm("norm2")(y, train=train)
        return self.add_shortcut(x, y, train=train)


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolution (He et al. 2015, figure 5 right).

    The stride sits in the 3x3 convolution as in torchvision ("v1.5"), where the paper has it in
    the first 1x1.  [B, H, W, C] to [B, H/stride, W/stride, 4 * features].
    """

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = self.conv(self.features, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y, train=train))
        y = self.conv(self.features, 3, self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y, train=train))
        y = self.conv(self.expansion * self.features, 1, name="conv3")(y)
        y = self.last_norm("norm3")(y, train=train)
        return self.add_shortcut(x, y, train=train)
