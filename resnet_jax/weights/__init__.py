"""Loading published weights into our variables, and saving variables for other libraries."""

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    # Python finds the name here from now on, without calling this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
