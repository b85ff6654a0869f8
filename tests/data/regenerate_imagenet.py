"""Rewrite the names of ImageNet's classes, `resnet_jax/data/imagenet_*.tsv*`.

    python tests/data/regenerate_imagenet.py

It needs timm and torchvision, in an environment of their own; `tests/golden/regenerate.py` says how
to make one.  The identifiers and their order are those of timm 1.0.31.  The names of the 1,000
classes are torchvision's.  Those of the 21,843 are the first words of WordNet 3.0 for the synset,
all of its words if several classes share the first, and the words with the identifier if several
classes share them all.
"""

import gzip
from collections import Counter
from pathlib import Path

TARGET = Path(__file__).parents[2] / "resnet_jax" / "data"


def main() -> None:
    """Write both tables."""
    # Imported here, because pytest imports this module to look for doctests where they are missing.
    from timm.data import ImageNetInfo
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    synsets = ImageNetInfo("imagenet-1k").label_names()
    names = _IMAGENET_CATEGORIES
    lines = [f"{synset}\t{name}\n" for synset, name in zip(synsets, names, strict=True)]
    (TARGET / "imagenet_1k.tsv").write_text("".join(lines), "utf-8")

    all_classes = ImageNetInfo("imagenet-21k-goog")
    in_12k = set(ImageNetInfo("imagenet-12k").label_names())
    synsets = all_classes.label_names()
    words = all_classes.label_descriptions()
    names = [text.split(", ")[0] for text in words]
    numbered = [f"{text} ({synset})" for text, synset in zip(words, synsets, strict=True)]
    for others in (words, numbered):
        count = Counter(names)
        pairs = zip(names, others, strict=True)
        names = [name if count[name] == 1 else other for name, other in pairs]
    lines = [
        f"{synset}\t{'12k' if synset in in_12k else ''}\t{name}\n"
        for synset, name in zip(synsets, names, strict=True)
    ]
    content = gzip.compress("".join(lines).encode(), mtime=0)
    (TARGET / "imagenet_21k.tsv.gz").write_bytes(content)


if __name__ == "__main__":
    main()
