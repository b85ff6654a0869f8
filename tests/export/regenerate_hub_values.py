"""Rewrites `hub_values.json`: what timm and transformers compute from directories that we write.

    python -m tests.export.regenerate_hub_values [PATTERN]

With a pattern such as ``"transformers*"``, only the cases whose names match it are computed anew.

It needs timm and transformers in an environment of their own, together with this library;
`tests/golden/regenerate.py` says how to make one. The file was written with timm 1.0.31,
transformers 5.24.0 and torch 2.13.0.
"""

import fnmatch
import json
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from resnet_jax import Classifier
from tests.comparison import deviation
from tests.export.hub_cases import CASES, VALUES, Case, configuration, digest, images
from tests.export.networks import CLASSES


def logits_of(case: Case, directory: Path, batch: np.ndarray) -> np.ndarray:
    """Return the logits of the network that the library of a case loads from a directory."""
    pixels = torch.from_numpy(batch).permute(0, 3, 1, 2)
    if case.layout == "timm":
        network: Any = timm.create_model(f"local-dir:{directory}", pretrained=True).eval()
        assert tuple(network.pretrained_cfg["label_names"]) == CLASSES
        with torch.no_grad():
            return network(pixels).numpy()
    network, report = AutoModelForImageClassification.from_pretrained(
        directory, output_loading_info=True
    )
    assert not any(report.values()), report
    assert tuple(network.config.id2label.values()) == CLASSES
    with torch.no_grad():
        return network.eval()(pixels).logits.numpy()


def prepared_by(case: Case, directory: Path, photo: np.ndarray) -> np.ndarray:
    """Return an image as the library of a case prepares it, float32[H, W, C]."""
    from PIL import Image

    image = Image.fromarray(photo)
    if case.layout == "timm":
        network: Any = timm.create_model(f"local-dir:{directory}", pretrained=True)
        config = timm.data.resolve_model_data_config(network)
        if config["input_size"][0] == 1:
            image = image.convert("L")
        return (
            timm.data.create_transform(**config, is_training=False)(image).permute(1, 2, 0).numpy()
        )
    processor = AutoImageProcessor.from_pretrained(directory)
    return processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)


def main() -> None:
    """Compute the values of every case and write the file."""
    torch.set_num_threads(1)
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    pattern = sys.argv[1] if len(sys.argv) > 1 else "*"
    values: dict[str, Any] = json.loads(VALUES.read_text()) if VALUES.exists() else {}
    values |= {
        "versions": {name: metadata.version(name) for name in ("torch", "timm", "transformers")}
    }
    for case in CASES:
        if not fnmatch.fnmatchcase(case.id, pattern):
            continue
        with tempfile.TemporaryDirectory() as place:
            directory = Path(place)
            case.write(directory)
            ours = Classifier.from_pretrained(directory)
            batch = images(ours)
            theirs = logits_of(case, directory, batch)
            found = ours.model.apply(ours.variables, batch, train=False)
            pixels = ""
            if case.preprocessing.get("channels") != 1 or case.layout == "timm":
                other = prepared_by(case, directory, photo)
                mine = np.asarray(ours.preprocess(photo))[0]
                levels = 255 * np.asarray(ours.preprocessing.std) * np.abs(other - mine)
                pixels = f", largest difference of a pixel {levels.max():.2f} levels"
            print(f"{case.id}: deviation of the logits {deviation(found, theirs):.1e}{pixels}")
            values[case.id] = {
                "configuration": configuration(directory),
                "sha256": digest(directory / "model.safetensors"),
                "logits": [[float(f"{x:.8g}") for x in row] for row in theirs],
            }
        VALUES.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
