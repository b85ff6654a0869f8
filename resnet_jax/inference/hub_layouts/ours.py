"""Our own description of a network, within a ``config.json`` of timm's layout.

timm ignores the key `KEY`. The description says what timm's fields cannot: names of networks that
timm does not have, options of networks, class names in any language, and the calibration.
"""

import dataclasses
import re
from typing import Any

from resnet_jax.inference.calibration import Calibration, FittedOn
from resnet_jax.inference.hub_layouts.description import Description, Json
from resnet_jax.inference.spec import ModelSpec

KEY = "resnet_jax"
"""Key in ``config.json`` of the description."""


def is_ours(config: Json) -> bool:
    """Return whether a ``config.json`` has our description.

    Exports in timm's layout have facts under the same key, without a description of the network.
    """
    fields = config.get(KEY)
    return isinstance(fields, dict) and "model" in fields


def our_fields(spec: ModelSpec, calibration: Calibration) -> dict[str, Any]:
    """Return what `our_description` reads, for ``config.json``.

    Args:
        spec: The network.
        calibration: Its calibration, which may be the default one. Names of data sets in it lose
            their directories, because a repository may be public.
    """
    public = dataclasses.replace(
        calibration,
        temperature_fitted_on=_public(calibration.temperature_fitted_on),
        threshold_fitted_on=_public(calibration.threshold_fitted_on),
    )
    return {KEY: {"model": spec.to_json(), "calibration": public.to_json()}}


def last_part(path: str) -> str:
    """Return a path without its directories, which can name people and projects.

    >>> last_part("/home/ada/photos/"), last_part("digits")
    ('photos', 'digits')
    """
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _public(fitted_on: FittedOn | None) -> FittedOn | None:
    return fitted_on and dataclasses.replace(fitted_on, data=last_part(fitted_on.data))


def our_description(config: Json) -> Description:
    """Return what a ``config.json`` with our key describes.

    Raises:
        ValueError: It describes a network that does not exist here, it is damaged, or a newer
            version of resnet_jax wrote it.
    """
    fields = config[KEY]
    spec = ModelSpec.from_json(fields["model"])
    calibration = Calibration.from_json(fields["calibration"])
    preprocessing = spec.preprocessing
    return Description(spec.create(), preprocessing, preprocessing, spec.class_names, calibration)
