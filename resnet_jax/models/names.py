"""Activations, normalization layers and types by the names that configurations and files use."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.layers import (
    StandardizedConv,
    blurred_conv,
    relu,
    uniform_scale,
    zero_padded_blurred_max_pool,
)
from resnet_jax.models.normalization import BatchNorm, EvoNorm, FilterResponseNorm, GroupNorm

NAMED_VALUES: dict[str, dict[str, Any]] = {
    "act": {
        "relu": relu,
        "leaky_relu": nn.leaky_relu,
        "silu": nn.silu,
        "gelu": nn.gelu,
        "mish": jax.nn.mish,
        "elu": nn.elu,
    },
    "norm": {
        "batch": BatchNorm,
        "group": GroupNorm,
        "evo": EvoNorm,
        "filter_response": FilterResponseNorm,
    },
    "conv": {"blurred": blurred_conv, "standardized": StandardizedConv},
    "stem_pool": {"blurred_max": zero_padded_blurred_max_pool},
    "norm_scale_init": {"ones": nn.initializers.ones, "uniform": uniform_scale},
    "dtype": {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16},
}
"""Values of overrides of `resnet_jax.create_model` that JSON cannot hold, by field and name."""


def named_value(field: str, value: Any) -> Any:
    """Return the value of an override, given its JSON value.

    Raises:
        ValueError: the field has no value of that name.
    """
    named = NAMED_VALUES.get(field)
    if named is None or value is None:
        return tuple(value) if isinstance(value, list) else value
    if value not in named:
        raise ValueError(f"{field} must be one of {', '.join(named)}, but it is {value!r}")
    return named[value]
