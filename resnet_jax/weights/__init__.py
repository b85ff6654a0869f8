"""Loading published weights into our variables, and saving variables for other libraries."""

from typing import TYPE_CHECKING

from resnet_jax.lazy_imports import lazy_names

if TYPE_CHECKING:
    from resnet_jax.weights.catalogue import Pretrained as Pretrained
    from resnet_jax.weights.catalogue import list_pretrained as list_pretrained
    from resnet_jax.weights.load import LoadReport as LoadReport
    from resnet_jax.weights.load import load_matching_weights as load_matching_weights
    from resnet_jax.weights.load import load_weights as load_weights
    from resnet_jax.weights.save import save_weights as save_weights

# The module that each name comes from. It is imported when the name is first used, so that
# `resnet-jax weights`, which reads the catalogue, does not wait a second for JAX and Flax.
_MODULES = {
    "LoadReport": "load",
    "Pretrained": "catalogue",
    "list_pretrained": "catalogue",
    "load_matching_weights": "load",
    "load_weights": "load",
    "save_weights": "save",
}

__all__ = list(_MODULES)

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
