"""Weights that others have published for members of the family.

They are those of torchvision, of timm and of everyone whose weights timm keeps on the Hugging Face
hub.  `catalogue.csv` beside this module lists them; `tests/weights/regenerate_catalogue.py` says
where its numbers are from.
"""

import csv
import dataclasses
import fnmatch
import functools
from importlib import resources


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Published weights and the images that they are for.

    Attributes:
        name: of the network and of its training, such as ``resnet50.a1_in1k``.
        top1: accuracy on the validation images of ImageNet-1k in %, as timm measured it; None
            where timm's table has none, as for weights of other classes.
        top5: of the same measurement.
        test_size: side in pixels of the images that the accuracies were measured on.
        input_size: side in pixels that timm feeds by default, mostly that of the training images.
        crop_fraction: side of the central crop over the short side of the image that it is cut
            from, for images of ``test_size``.
        interpolation: of the resizing before it, ``bilinear`` or ``bicubic``.
        mean: subtracted from red, green and blue, which are between 0 and 1.
        std: what the difference is divided by.
        licence: of the weights, as timm states it; None where it states none.
        num_classes: number of logits; 0 without a head.
    """

    name: str
    top1: float | None
    top5: float | None
    test_size: int
    input_size: int
    crop_fraction: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str | None
    num_classes: int

    @property
    def model(self) -> str:
        """The network's name for `create_model`."""
        return self.name.partition(".")[0]

    @property
    def source(self) -> str:
        """Where `load_weights` gets them from."""
        return f"hf://timm/{self.name}"


def list_pretrained(pattern: str = "*") -> list[Pretrained]:
    """Published weights whose names match a shell pattern, in the order of `list_models`.

    >>> [(weights.source, weights.top1) for weights in list_pretrained("resnet50.tv*")]
    [('hf://timm/resnet50.tv2_in1k', 80.844), ('hf://timm/resnet50.tv_in1k', 76.156)]
    """
    return [weights for weights in _table() if fnmatch.fnmatchcase(weights.name, pattern)]


@functools.cache
def _table() -> tuple[Pretrained, ...]:
    content = resources.files("resnet_jax.weights").joinpath("catalogue.csv").read_text("utf-8")
    return tuple(_pretrained(row) for row in csv.DictReader(content.splitlines()))


def _pretrained(row: dict[str, str]) -> Pretrained:
    return Pretrained(
        name=row["name"],
        top1=float(row["top1"]) if row["top1"] else None,
        top5=float(row["top5"]) if row["top5"] else None,
        test_size=int(row["test_size"]),
        input_size=int(row["input_size"]),
        crop_fraction=float(row["crop_fraction"]),
        interpolation=row["interpolation"],
        mean=_colour(row["mean"]),
        std=_colour(row["std"]),
        licence=row["licence"] or None,
        num_classes=int(row["num_classes"]),
    )


def _colour(text: str) -> tuple[float, float, float]:
    red, green, blue = map(float, text.split())
    return red, green, blue
