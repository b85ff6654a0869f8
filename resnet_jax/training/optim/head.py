"""Training of the head alone, within the state of an optimizer of the whole network."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

HEAD = "head"
"""Name of the module that turns features into logits."""


def stop_below_head(params: Any) -> Any:
    """Return the same parameters, of which only those of the head have a gradient.

    The gradient of a loss then needs no backward pass through the rest of the network.
    """
    return jax.lax.stop_gradient(params) | {HEAD: params[HEAD]}


def of_head(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return an optimizer that updates only the head.

    Its state is that of the given optimizer, so a run can go on with either of them.  What the
    state holds for the other parameters, such as their momentum, does not change.

    Args:
        optimizer: An optimizer of all parameters.
    """

    def update(
        updates: Any, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        layers = set(updates)

        def of_another_layer(path: tuple[Any, ...]) -> bool:
            names = {key.key for key in path if isinstance(key, jax.tree_util.DictKey)}
            return not names.isdisjoint(layers - {HEAD})

        new: Any = optimizer.update(updates, state, params)
        new_updates, new_state = new
        return (
            {
                layer: leaves if layer == HEAD else jax.tree.map(jnp.zeros_like, leaves)
                for layer, leaves in new_updates.items()
            },
            jax.tree_util.tree_map_with_path(
                lambda path, new, old: old if of_another_layer(path) else new, new_state, state
            ),
        )

    return optax.GradientTransformation(optimizer.init, update)
