"""Rewrite the table of published weights, `resnet_jax/weights/catalogue.csv`.

    python tests/weights/regenerate_catalogue.py results-imagenet.csv

The script needs timm, in an environment of its own; `tests/golden/regenerate.py` says how to make
one.

Top-1 and top-5 are timm's measurements on the 50,000 validation images of ImageNet-1k.  The file is
`results/results-imagenet.csv` of https://github.com/huggingface/pytorch-image-models, here from
commit 7479d451a6dfd8af27f941b8e82a7402461fae80.  If it has several image sizes for some weights,
the size that timm tests with is used.  If it has no row for them, the accuracies stay empty.  All
other columns are what timm 1.0.31 records about the weights.

The weights of IBN-Net are files of a release at GitHub.  Their accuracies are the authors', from
the README of https://github.com/XingangPan/IBN-Net (commit d167338), and their preprocessing is
that of its `imagenet.py`.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
_IBN_NET: dict[str, tuple[str, str, str]] = {
    "resnet18_ibn_a": ("2f571257", "29.17", "10.24"),
    "resnet34_ibn_a": ("94bc1577", "25.78", "8.19"),
    "resnet50_ibn_a": ("d9d0bb7b", "22.54", "6.32"),
    "resnet101_ibn_a": ("59ea0ac6", "21.39", "5.59"),
    "resnext101_ibn_a": ("6ace051d", "20.88", "5.42"),
    "se_resnet101_ibn_a": ("fabed4e2", "21.25", "5.51"),
    "resnet18_ibn_b": ("bc2f3c11", "", ""),
    "resnet34_ibn_b": ("04134c37", "", ""),
    "resnet50_ibn_b": ("9ca61e85", "", ""),
    "resnet101_ibn_b": ("c55f6dba", "", ""),
}
"""Name to the digits of its file, and its top-1 and top-5 errors in percent."""

TARGET = TESTS.parent / "resnet_jax" / "weights" / "catalogue.csv"


def published(results: Iterable[dict[str, str]]) -> Iterator[dict[str, object]]:
    """Return the rows of the table, in the order of the family.

    Args:
        results: rows of timm's table.

    Raises:
        ValueError: timm's table was measured with other images than timm records.
    """
    # This import is not at the top, because pytest imports this module to look for doctests, and
    # timm is not installed there.
    import timm

    members = list(json.loads((TESTS / "golden" / "members.json").read_text()))
    measured = {(row["model"], int(row["img_size"])): row for row in results}
    names = [name for name in timm.list_pretrained() if _model(name) in members]
    for name in sorted(names, key=lambda name: members.index(_model(name))):
        config = timm.models.get_pretrained_cfg(name)
        if config.hf_hub_id != f"timm/{name}":
            raise ValueError(f"{name} is kept at {config.hf_hub_id}, which the table cannot say")
        if config.crop_mode != "center":
            raise ValueError(f"{name} has crop mode {config.crop_mode}, which the table cannot say")
        test_size = (config.test_input_size or config.input_size)[-1]
        crop = config.test_crop_pct or config.crop_pct
        result = measured.get((name, test_size))
        if result and (float(result["crop_pct"]), result["interpolation"]) != (
            crop,
            config.interpolation,
        ):
            raise ValueError(f"{name} was measured with other crops than timm records: {result}")
        yield {
            "name": name,
            "top1": result["top1"] if result else "",
            "top5": result["top5"] if result else "",
            "test_size": test_size,
            "input_size": config.input_size[-1],
            "crop_fraction": crop,
            "input_crop_fraction": config.crop_pct,
            "interpolation": config.interpolation,
            "mean": " ".join(map(str, config.mean)),
            "std": " ".join(map(str, config.std)),
            "licence": config.license.replace("unknown", "") if config.license else "",
            "num_classes": config.num_classes,
            "url": "",
        }


def ibn_net() -> Iterator[dict[str, object]]:
    """The rows of the weights of IBN-Net."""
    for name, (digits, *errors) in _IBN_NET.items():
        top1, top5 = (f"{100 - float(error):.2f}" if error else "" for error in errors)
        yield {
            "name": f"{name}.in1k",
            "top1": top1,
            "top5": top5,
            "test_size": 224,
            "input_size": 224,
            "crop_fraction": 0.875,
            "input_crop_fraction": 0.875,
            "interpolation": "bilinear",
            "mean": "0.485 0.456 0.406",
            "std": "0.229 0.224 0.225",
            "licence": "mit",
            "num_classes": 1000,
            "url": f"{_RELEASE}{name}-{digits}.pth",
        }


def _model(name: str) -> str:
    return name.partition(".")[0]


def main() -> None:
    """Read timm's table and write ours."""
    with Path(sys.argv[1]).open(newline="") as file:
        rows = [*published(csv.DictReader(file)), *ibn_net()]
    members = list(json.loads((TESTS / "golden" / "members.json").read_text()))
    rows.sort(key=lambda row: members.index(_model(str(row["name"]))))
    with TARGET.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
