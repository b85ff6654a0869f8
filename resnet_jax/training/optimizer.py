"""The Optax optimizer that a configuration describes."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict

from resnet_jax.config import SGDConfig


def make_schedule(config: SGDConfig, *, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Learning rate of a step: linear from 0 to the peak, then half a cosine down to 0.

    Args:
        config: gives the peak.
        warmup_steps: the peak is reached at this step.
        total_steps: 0 is reached at this step.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup_steps else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
    )


def is_kernel(params: optax.Params) -> optax.Params:
    """True for the kernels of convolutions and dense layers, False for norm scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(
    config: SGDConfig, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """SGD with momentum and coupled L2 decay, step for step that of ``torch.optim.SGD``."""
    decayed = None if config.decay_norm_and_bias else is_kernel
    optimizer = optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(learning_rate, momentum=config.momentum or None, nesterov=config.nesterov),
    )
    if config.layer_decay < 1:
        optimizer = optax.chain(optimizer, scale_by_depth(config.layer_decay))
    if config.freeze:
        optimizer = optax.partition(
            {True: optax.set_to_zero(), False: optimizer},
            lambda params: frozen(params, config.freeze),
        )
    return optimizer


def frozen(params: optax.Params, patterns: Sequence[str]) -> optax.Params:
    """True for every parameter whose path, such as ``stem/conv/kernel``, a pattern matches.

    Args:
        params: of a model; shapes suffice.
        patterns: regular expressions, matched from the start of the path.

    Raises:
        ValueError: a pattern matches no parameter; the message names paths that are near.
    """
    paths = ["/".join(names) for names in flatten_dict(params)]
    for pattern in patterns:
        if not any(re.match(pattern, path) for path in paths):
            near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            raise ValueError(
                f"freeze: {pattern!r} matches no parameter; there are {', '.join(near)}"
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(
            re.match(pattern, "/".join(key.key for key in path)) for pattern in patterns
        ),
        params,
    )


def scale_by_depth(layer_decay: float) -> optax.GradientTransformation:
    """Multiplies updates by ``layer_decay`` to the power of the number of layers above.

    The stem is one layer, each block is one, and the head is the highest one.  The final
    normalisation of a pre-activation network belongs to its last block.  These are timm's groups
    (``group_matcher`` of its ``resnet.py`` and ``resnetv2.py``).
    """

    def update(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        del params
        blocks = sorted(
            {names[:2] for names in flatten_dict(updates) if names[0].startswith("stage")},
            key=lambda names: [int(name.lstrip("stageblock")) for name in names],
        )
        top = len(blocks) + 1

        def scale(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            names = tuple(key.key for key in path[:2])
            if names in blocks:
                layer = blocks.index(names) + 1
            elif names[0] == "final_norm":
                layer = len(blocks)
            else:
                layer = 0 if names[0].startswith("stem") else top
            return leaf * layer_decay ** (top - layer)

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.stateless(update)
