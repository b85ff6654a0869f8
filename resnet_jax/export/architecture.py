"""Which fields of a network decide its logits, and its name in the table of networks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp

from resnet_jax.models import ResNet, create_model, list_models
from resnet_jax.models.options import map_blocks

# Fields of normalization layers and blocks that only training and initialization read.
_TRAINING = (
    "axis_index_groups",
    "axis_name",
    "dropout_rate",
    "frozen",
    "group_size",
    "momentum",
    "scale_init",
    "use_fast_variance",
)


def for_inference(model: ResNet) -> ResNet:
    """Return the network with the default of every field that does not change its logits.

    Two networks with equal results compute the same function of their variables, but for the
    compute type. The converse does not hold: fields can be given in ways that this does not know.
    """
    widths = model.stage_widths
    doubled = all(width == widths[0] * 2**i for i, width in enumerate(widths))
    stem = model.stem_widths
    return model.clone(
        block=map_blocks(_without_training, model.block),
        norm=_without_training(model.norm),
        stem_norm=None if model.stem_norm is None else _without_training(model.stem_norm),
        width=widths[0] if doubled else widths,
        stem_widths=None if stem == (widths[0],) else stem,
        in_channels=None,
        zero_init_residual=False,
        dropout_rate=0.0,
        drop_path_rate=0.0,
        drop_path_rule="block",
        drop_block_rate=0.0,
        head_bias_init=0.0,
        remat=False,
        scan=False,
        dtype=jnp.float32,
    )


def _without_training(builder: Callable[..., Any]) -> Callable[..., Any]:
    """Return a builder without the options that only training and initialization read."""
    if not isinstance(builder, partial):
        return builder
    kept = {name: value for name, value in builder.keywords.items() if name not in _TRAINING}
    return partial(builder.func, *builder.args, **kept) if kept or builder.args else builder.func


def name_of(model: ResNet) -> str | None:
    """Return the name of the network in `list_models` that computes the same, or None.

    The number of classes and of image channels, the output stride and the global pooling may
    differ.
    """
    wanted = for_inference(model)
    for name in list_models():
        network = create_model(name, num_classes=model.num_classes)
        if network.stage_sizes != model.stage_sizes:
            continue
        # Attention pooling has parameters, and cannot become another pooling.
        pools = isinstance(model.global_pool, str) and isinstance(network.global_pool, str)
        pool = model.global_pool if pools else network.global_pool
        if model.output_stride != network.output_stride or pool != network.global_pool:
            network = network.clone(output_stride=model.output_stride, global_pool=pool)
        if for_inference(network) == wanted:
            return name
    return None
