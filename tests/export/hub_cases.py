"""Networks that are written in the layouts of timm and ``transformers``, and what those compute.

`hub_values.json` holds, for each case, what the real libraries found in a directory that this
library had written: the digest of the weights, the configuration, and the logits for `images`. It
was written by `regenerate_hub_values.py`.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resnet_jax import Classifier
from resnet_jax.export.timm import write_timm
from resnet_jax.export.transformers import write_transformers
from tests.export.networks import PREPROCESSING, classifier
from tests.golden import golden

VALUES = Path(__file__).parent / "hub_values.json"


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier in a layout.

    Attributes:
        layout: Which library reads it.
        name: Name of the network.
        overrides: Fields of the network.
        preprocessing: Changes of the preprocessing.
        quick: Whether the network is small enough for every run of the tests.
    """

    layout: Literal["timm", "transformers"]
    name: str
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: dict[str, Any] = dataclasses.field(default_factory=dict)
    quick: bool = False

    @property
    def id(self) -> str:
        """Name of the case in the file of values."""
        changes = [f"{k}={v}" for k, v in (self.overrides | self.preprocessing).items()]
        return " ".join([self.layout, self.name, *changes])

    def classifier(self) -> Classifier:
        """Return the classifier with golden weights."""
        preprocessing = dataclasses.replace(PREPROCESSING, **self.preprocessing)
        return classifier(self.name, preprocessing=preprocessing, **self.overrides)

    def write(self, directory: Path) -> None:
        """Write the classifier in its layout."""
        write = write_timm if self.layout == "timm" else write_transformers
        write(self.classifier(), directory)


_GRAY = {"channels": 1, "mean": (0.5,), "std": (0.25,)}
_NARROW = {"width": 8, "stage_sizes": (1, 2, 1, 1)}
CASES = [
    Case("timm", "test_resnet", quick=True),
    Case("timm", "test_resnet", {"output_stride": 16, "global_pool": "avgmax"}, quick=True),
    Case("timm", "test_resnet", preprocessing=_GRAY, quick=True),
    Case("timm", "resnet18", {"dropout_rate": 0.1, "bn_decay": 0.99, "zero_init_residual": True}),
    Case("timm", "resnet10t", preprocessing={"crop_mode": "squash", "crop_fraction": 1.0}),
    Case("timm", "resnet50", {"stride_in_1x1": False}),
    Case("timm", "resnetv2_18d"),
    Case("timm", "ecaresnet26t"),
    Case("timm", "seresnet18"),
    Case("timm", "skresnet18"),
    Case("timm", "resnest14d"),
    Case("timm", "nf_seresnet26"),
    Case("timm", "resnetblur18"),
    Case("timm", "resnet50_gn"),
    Case("transformers", "resnet18", _NARROW, quick=True),
    Case("transformers", "resnet50", _NARROW | {"stride_in_1x1": True}, quick=True),
    Case("transformers", "resnet18", _NARROW, _GRAY, quick=True),
    Case("transformers", "resnet26"),
]


def images(classifier: Classifier) -> np.ndarray:
    """Return two normalized images, float32[2, 64, 64, C]."""
    return golden.images(2, 64)[..., : classifier.preprocessing.channels]


def digest(file: Path) -> str:
    """Return the SHA-256 of a file of weights, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def configuration(directory: Path) -> dict[str, Any]:
    """Return the JSON files of a directory without versions and date, which change."""
    found = {}
    for file in sorted(directory.glob("*.json")):
        found[file.name] = json.loads(file.read_text())
        if "resnet_jax" in found[file.name]:
            del found[file.name]["resnet_jax"]["versions"], found[file.name]["resnet_jax"]["date"]
    return found
