"""What an optimizer has to know about the parameters of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax
    import optax

Mask = Callable[[Any], Any]
"""Function from a tree of parameters to a tree of booleans with the same structure."""


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The kinds of parameters of a network, which the `create` of every optimizer is given.

    Configurations do not depend on networks. `resnet_jax.training.optim.create_optimizer` makes
    this object, because it knows the paths and shapes of the parameters.
    """

    decayed: Mask | None
    """True for the parameters that weight decay acts on. None if it acts on all of them."""
    convolutions: Mask
    """True for the kernels of convolutions over images, float[H, W, I, O]."""
    each_array: Callable[..., Any]
    """``each_array(function, *trees)`` applies a function to the arrays of one or more trees, as
    `jax.tree.map` does. Where ``scan`` stacks the arrays of several blocks, the function sees the
    array of each block by itself, so that norms do not depend on ``scan``."""

    def transform_decayed(
        self, function: Callable[[jax.Array, jax.Array], jax.Array]
    ) -> optax.GradientTransformation:
        """Return a transformation of the updates of the parameters that decay.

        Args:
            function: Function from the update of an array and the array itself to the new update.
        """
        import optax

        transformation = optax.stateless(
            lambda updates, params: self.each_array(function, updates, params)
        )
        return optax.masked(transformation, True if self.decayed is None else self.decayed)
