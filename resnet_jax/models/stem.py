"""The layers between the image and the first stage."""

import flax.linen as nn
import jax

from resnet_jax.models.layers import Activation, Conv, Norm
from resnet_jax.models.normalization import activated


class Stem(nn.Module):
    """The convolutions that read the image, without the pooling that may follow.

    ImageNet networks have one 7x7 convolution (He et al. 2015, table 1), CIFAR networks one 3x3
    convolution (He et al. 2015, section 4.2), and networks with a deep stem three 3x3 convolutions
    (He et al. 2018, figure 2b).  Normalization and activation follow each convolution, except the
    last one of a pre-activation network.

    Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), widths[-1]].

    Attributes:
        widths: number of output channels of each convolution.
        kernel_size: height and width of every kernel in pixels, odd.
        stride: stride of the first convolution in pixels.
        preactivation: whether to leave out the last normalization and activation.
        conv: builds a convolution.
        norm: builds a normalization layer.
        act: activation function.
    """

    widths: tuple[int, ...]
    kernel_size: int
    stride: int
    preactivation: bool
    conv: Conv
    norm: Norm
    act: Activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i, width in enumerate(self.widths, start=1):
            index = "" if len(self.widths) == 1 else str(i)
            stride = self.stride if i == 1 else 1
            x = self.conv(width, self.kernel_size, stride, name=f"conv{index}")(x)
            if not (self.preactivation and i == len(self.widths)):
                x = activated(self.norm(name=f"norm{index}"), self.act, x, train=train)
        return x


class ConvPool(nn.Module):
    """A 3x3 convolution with stride 2 that replaces max-pooling (ResNet-RS, Bello et al. 2021).

    Maps [B, H, W, C] to [B, ceil(H/2), ceil(W/2), C].

    Attributes:
        conv: builds a convolution.
        norm: builds a normalization layer.
        act: activation function.
    """

    conv: Conv
    norm: Norm
    act: Activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.conv(x.shape[-1], 3, 2, name="conv")(x)
        return activated(self.norm(name="norm"), self.act, x, train=train)
