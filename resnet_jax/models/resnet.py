"""The one residual network: stem, stages of blocks, head."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.blocks import ResidualBlock
from resnet_jax.models.layers import (
    BatchNorm,
    Conv,
    Norm,
    PadShortcut,
    ProjectionShortcut,
    Stem,
    conv,
    max_pool,
    torch_linear,
)


class Stage(nn.Module):
    """Blocks of one width and resolution; the first one carries the stride."""

    num_blocks: int
    features: int
    stride: int
    block: type[ResidualBlock]
    conv: Conv
    norm: Norm
    shortcut: type[ProjectionShortcut] | type[PadShortcut]
    zero_init_residual: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i in range(self.num_blocks):
            x = self.block(
                features=self.features,
                stride=self.stride if i == 0 else 1,
                conv=self.conv,
                norm=self.norm,
                shortcut=self.shortcut,
                zero_init_residual=self.zero_init_residual,
                name=f"block{i + 1}",
            )(x, train=train)
        return x


class ResNet(nn.Module):
    """A residual network (He et al. 2015, https://arxiv.org/abs/1512.03385).

    Every member of the family is this class with other fields; `resnet_jax.create_model` knows
    them by name.  Parameters, running statistics and logits are float32; ``dtype`` is the type
    in which the convolutions compute.

    Attributes:
        stage_sizes: number of blocks of each stage.
        block: `BasicBlock` or `BottleneckBlock`.
        num_classes: number of logits.
        width: channels of the stem and of the first stage; each stage doubles them.
        stem_kernel_size: of the first convolution, in pixels, odd.
        stem_stride: of the first convolution, in pixels.
        stem_pool: 3x3 max-pooling with stride 2 between stem and first stage.
        shortcut: `ProjectionShortcut` (option B) or `PadShortcut` (option A).
        zero_init_residual: start every block as the identity; torchvision's default is False.
        bn_decay: share of the running statistics that a training step keeps, 0 to 1.
        bn_epsilon: added to the variance.
        dtype: compute type, such as ``jnp.bfloat16``.
    """

    stage_sizes: tuple[int, ...]
    block: type[ResidualBlock]
    num_classes: int = 1000
    width: int = 64
    stem_kernel_size: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    shortcut: type[ProjectionShortcut] | type[PadShortcut] = ProjectionShortcut
    zero_init_residual: bool = False
    bn_decay: float = 0.9
    bn_epsilon: float = 1e-5
    dtype: Any = jnp.float32

    def setup(self) -> None:
        conv_layer = partial(conv, dtype=self.dtype)
        norm_layer = partial(
            BatchNorm, momentum=self.bn_decay, epsilon=self.bn_epsilon, dtype=self.dtype
        )
        self.stem = Stem(
            self.width, self.stem_kernel_size, self.stem_stride, conv_layer, norm_layer
        )
        self.stages = [
            Stage(
                num_blocks=num_blocks,
                features=self.width * 2**i,
                stride=1 if i == 0 else 2,
                block=self.block,
                conv=conv_layer,
                norm=norm_layer,
                shortcut=self.shortcut,
                zero_init_residual=self.zero_init_residual,
                name=f"stage{i + 1}",
            )
            for i, num_blocks in enumerate(self.stage_sizes)
        ]
        self.head = nn.Dense(self.num_classes, kernel_init=torch_linear, dtype=jnp.float32)

    def features(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Feature maps of every resolution, for detection, segmentation or inspection.

        Args:
            images: float[B, H, W, C], normalised.
            train: use the statistics of the batch, and update the running ones if
                ``batch_stats`` is mutable.

        Returns:
            ``"stem"`` (before pooling) and ``"stage1"``, ``"stage2"``, ...: dtype[B, H', W', C'].
            For ImageNet networks H' is H/2 for the stem, then H/4, H/8, H/16, H/32.
        """
        x = self.stem(images.astype(self.dtype), train=train)
        maps = {"stem": x}
        if self.stem_pool:
            x = max_pool(x)
        for i, stage in enumerate(self.stages):
            x = maps[f"stage{i + 1}"] = stage(x, train=train)
        return maps

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits float32[B, num_classes] of normalised images float[B, H, W, C].

        Args:
            images: any height and width; 224 for ImageNet and 32 for CIFAR are customary.
            train: as in `features`.
        """
        last = self.features(images, train=train)[f"stage{len(self.stage_sizes)}"]
        return self.head(jnp.mean(last, axis=(1, 2), dtype=jnp.float32))
