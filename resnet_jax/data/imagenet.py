"""Names of the classes of ImageNet."""

import functools
import gzip
from importlib import resources
from typing import NamedTuple


class ImageNetClass(NamedTuple):
    """A class of ImageNet.

    Attributes:
        synset: Identifier in WordNet 3.0, such as ``n02123045``, after which the folders of the
            data set are named.
        name: Name that no other class of the set has, such as ``tabby``.
    """

    synset: str
    name: str


@functools.cache
def imagenet_classes(num_classes: int = 1000) -> tuple[ImageNetClass, ...]:
    """Return the classes of ImageNet in the order of the logits of published weights.

    Args:
        num_classes: 1000 for ImageNet-1k (ILSVRC 2012), with the names of torchvision; 11821 for
            timm's ImageNet-12k; 21843 for the ImageNet-21k of BiT.

    Raises:
        ValueError: No set that published weights use has this number of classes.

    >>> imagenet_classes()[281]
    ImageNetClass(synset='n02123045', name='tabby')
    """
    if num_classes == 1000:
        lines = _read("imagenet_1k.tsv").decode().splitlines()
        return tuple(ImageNetClass(*line.split("\t")) for line in lines)
    if num_classes not in (11821, 21843):
        raise ValueError(f"ImageNet has 1000, 11821 or 21843 classes, but not {num_classes}")
    rows = [
        line.split("\t")
        for line in gzip.decompress(_read("imagenet_21k.tsv.gz")).decode().splitlines()
    ]
    # ImageNet-12k is a part of ImageNet-21k, in the same order.
    return tuple(
        ImageNetClass(synset, name)
        for synset, in_12k, name in rows
        if in_12k or num_classes == 21843
    )


def _read(name: str) -> bytes:
    return resources.files("resnet_jax.data").joinpath(name).read_bytes()
