"""The catalogue of published weights for members of the family.

It covers the weights of torchvision, timm and others that timm hosts on the Hugging Face hub, and
those of IBN-Net.  The data are in `catalogue.csv` next to this module.
`tests/weights/regenerate_catalogue.py` documents their sources and rebuilds the file.
"""

import csv
import dataclasses
import fnmatch
import functools
from importlib import resources


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A set of published weights and the preprocessing that it expects.

    Attributes:
        name: Name of the network and of its training, such as ``resnet50.a1_in1k``.
        top1: Top-1 accuracy on the ImageNet-1k validation images in percent, measured by timm,
            or by the authors of IBN-Net.  None if neither table has an entry, for example for
            weights of other classes.
        top5: Top-5 accuracy in percent from the same measurement.
        test_size: Side in pixels of the images on which the accuracies were measured.
        input_size: Side in pixels that timm uses by default, usually the training size.
        crop_fraction: Side of the central crop divided by the shorter side of the resized image,
            for images of ``test_size``.
        input_crop_fraction: The same for images of ``input_size``.
        interpolation: Filter of the resizing, ``bilinear`` or ``bicubic``.
        mean: Mean of the red, green and blue channels, to subtract from pixels in [0, 1].
        std: Standard deviation of the channels, to divide the difference by.
        licence: License of the weights as stated by timm; None if timm states none.
        num_classes: Number of logits; 0 if the weights have no head.
        url: Address of the file, if timm does not host the weights; else None.
    """

    name: str
    top1: float | None
    top5: float | None
    test_size: int
    input_size: int
    crop_fraction: float
    input_crop_fraction: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str | None
    num_classes: int
    url: str | None = None

    @property
    def model(self) -> str:
        """The name of the network for `create_model`."""
        return self.name.partition(".")[0]

    @property
    def source(self) -> str:
        """The source to pass to `load_weights`, such as ``hf://timm/resnet50.a1_in1k``.

        Weights that timm does not host have their ``url`` here.  Download it, and pass the path of
        the file.
        """
        return self.url or f"hf://timm/{self.name}"


def list_pretrained(pattern: str = "*") -> list[Pretrained]:
    """Return the published weights whose names match a shell pattern.

    Nothing is downloaded; the catalogue is part of the package.

    Args:
        pattern: Shell-style wildcard as in `fnmatch`, matched against ``Pretrained.name``; case
            matters.  The default matches everything.

    Returns:
        The entries that match, in the order of `list_models`; an empty list if there are none.

    Examples:
        >>> [(weights.source, weights.top1) for weights in list_pretrained("resnet50.tv*")]
        [('hf://timm/resnet50.tv2_in1k', 80.844), ('hf://timm/resnet50.tv_in1k', 76.156)]

        Build the network of the most accurate ResNet-50, ready for `load_weights`:

        >>> from resnet_jax import create_model
        >>> best = max(list_pretrained("resnet50.*"), key=lambda weights: weights.top1 or 0)
        >>> model = create_model(best.model, num_classes=best.num_classes)
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
        input_crop_fraction=float(row["input_crop_fraction"]),
        interpolation=row["interpolation"],
        mean=_color(row["mean"]),
        std=_color(row["std"]),
        licence=row["licence"] or None,
        num_classes=int(row["num_classes"]),
        url=row["url"] or None,
    )


def _color(text: str) -> tuple[float, float, float]:
    red, green, blue = map(float, text.split())
    return red, green, blue
