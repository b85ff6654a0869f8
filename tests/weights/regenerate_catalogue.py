"""Rewrite the table of published weights, `resnet_jax/weights/catalogue.csv`.

    python tests/weights/regenerate_catalogue.py results-imagenet.csv

The script needs timm, in an environment of its own; `tests/golden/regenerate.py` says how to make
one.

Top-1 and top-5 are timm's measurements on the 50,000 validation images of ImageNet-1k.  The file is
`results/results-imagenet.csv` of https://github.com/huggingface/pytorch-image-models, here from
commit 7479d451a6dfd8af27f941b8e82a7402461fae80.  If it has several image sizes for some weights,
the size that timm tests with is used.  If it has no row for them, the accuracies stay empty.  All
other columns are what timm 1.0.31 records about the weights.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
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
            "licence": config.license or "",
            "num_classes": config.num_classes,
        }


def _model(name: str) -> str:
    return name.partition(".")[0]


def main() -> None:
    """Read timm's table and write ours."""
    with Path(sys.argv[1]).open(newline="") as file:
        rows = list(published(csv.DictReader(file)))
    with TARGET.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
