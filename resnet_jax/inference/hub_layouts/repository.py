"""Reading of the JSON files of a repository of weights.

timm and ``transformers`` each write a ``config.json`` of their own layout; ``transformers`` writes
the preprocessing into ``preprocessor_config.json``. The repositories that we write have the layout
of timm, with a description of our own in addition.
"""

import json
from pathlib import Path

from resnet_jax.config import ConfigError
from resnet_jax.inference.hub_layouts.description import Description, Json
from resnet_jax.inference.hub_layouts.ours import is_ours, our_description
from resnet_jax.inference.hub_layouts.timm import timm_description
from resnet_jax.inference.hub_layouts.transformers import MODEL_TYPES, transformers_description
from resnet_jax.one_line import one_line


def describe(config: Json, preprocessor: Json | None) -> Description:
    """Return what the configuration of a repository describes.

    Args:
        config: Content of ``config.json``, in our layout or that of timm or ``transformers``.
        preprocessor: Content of ``preprocessor_config.json``, if there is one.

    Raises:
        ValueError: It describes a network or a preprocessing that does not exist here.
    """
    if is_ours(config):
        return our_description(config)
    if "architecture" in config:
        return timm_description(config)
    kind = config.get("model_type")
    if kind in MODEL_TYPES:
        return transformers_description(config, preprocessor)
    raise ValueError(
        "config.json is neither timm's nor that of a ResNet or BiT of transformers"
        + (f", but of model_type {kind!r}" if kind else "")
        + "; give the name of the network as well"
    )


def read_description(source: str, config: Path, preprocessor: Path | None) -> Description:
    """Return what the files of a repository describe.

    Args:
        source: Name of the repository, for messages.
        config: Path of ``config.json``.
        preprocessor: Path of ``preprocessor_config.json``, which may be absent.

    Raises:
        ValueError: The files cannot be read, or as for `describe`.
    """
    try:
        fields = json.loads(config.read_text("utf-8"))
        steps = None
        if preprocessor is not None and preprocessor.exists():
            steps = json.loads(preprocessor.read_text("utf-8"))
        return describe(fields, steps)
    # Values of other types than those of the layout can raise anything that arithmetic raises.
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        KeyError,
        RecursionError,
        TypeError,
    ) as error:
        raise ValueError(
            one_line(f"{source}: its configuration cannot be read ({error!r})")
        ) from None
    except (ConfigError, ValueError) as error:
        raise ValueError(one_line(f"{source}: {error}")) from None
