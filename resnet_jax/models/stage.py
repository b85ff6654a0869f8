"""A stage: consecutive blocks of one width and one resolution."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.blocks import Rate, ResidualBlock
from resnet_jax.models.stacking import loop_length
from resnet_jax.ops.rematerialization import keep_convolutions, remat


class Stage(nn.Module):
    """Blocks of one width and one resolution, of which the first may have a stride.

    Maps [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C'].

    Attributes:
        blocks: builds each block from ``stride``, ``first_dilation``, ``dilation`` and ``name``.
        stride: stride of the first block in pixels.
        first_dilation: dilation of the first 3x3 convolution of the stage, in pixels.
        dilation: dilation of all other 3x3 convolutions, in pixels.
        drop_path_rates: the probability of each block that an example skips it in training.
        input_variances: the variance of each block's input at first.  None for blocks that
            normalize.
        remat: store only the input of each block for the backward pass and recompute the rest.
        scan: run all blocks after the first one as a loop if the stage has enough blocks.  They
            must be equal.
    """

    blocks: tuple[Callable[..., ResidualBlock], ...]
    stride: int
    first_dilation: int
    dilation: int
    drop_path_rates: tuple[float, ...]
    input_variances: tuple[float, ...] | None
    remat: bool
    scan: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def apply(
            block: ResidualBlock, x: jax.Array, drop_path_rate: Rate, input_variance: Rate
        ) -> jax.Array:
            variance = {} if input_variance is None else {"input_variance": input_variance}
            return block(x, train=train, drop_path_rate=drop_path_rate, **variance)

        size = len(self.blocks)
        looped = loop_length(size) if self.scan else 0
        self._check_stacking(stacked=looped > 0)
        for i, rate in enumerate(self.drop_path_rates[: size - looped]):
            block = self.blocks[i](
                stride=self.stride if i == 0 else 1,
                first_dilation=self.first_dilation if i == 0 else self.dilation,
                dilation=self.dilation,
                name=f"block{i + 1}",
            )
            variance = self.input_variances[i] if self.input_variances else None
            step = partial(apply, drop_path_rate=rate or None, input_variance=variance)
            x = (remat(step) if self.remat else step)(block, x)
        if looped:
            block = self.blocks[1](
                stride=1, first_dilation=self.dilation, dilation=self.dilation, name="blocks"
            )
            rates = self.drop_path_rates[1:]
            per_block = (
                jnp.asarray(rates) if any(rates) else None,
                jnp.asarray(self.input_variances[1:]) if self.input_variances else None,
            )
            # XLA cannot merge computations of different iterations, so no barrier is needed.
            kept = nn.remat(
                apply, prevent_cse=False, policy=None if self.remat else keep_convolutions
            )

            def body(
                block: ResidualBlock, x: jax.Array, per_block: tuple[Rate, Rate]
            ) -> tuple[jax.Array, None]:
                return kept(block, x, *per_block), None

            x, _ = nn.scan(
                body,
                variable_axes={True: 0},
                split_rngs={True: True},
                length=looped,
                check_constancy_invariants=False,
            )(block, x, per_block)
        return x

    def _check_stacking(self, *, stacked: bool) -> None:
        params = self.variables.get("params", {})
        if self.is_initializing() or not params or ("blocks" in params) == stacked:
            return
        found, change = ("scan=False", "stack") if stacked else ("scan=True", "unstack")
        raise ValueError(
            f"the variables of {'/'.join(self.path)} belong to a network with {found}; convert "
            f"them with {change}_blocks(variables)"
        )
