"""The PyTorch side of `benchmarks.predict`: from image files to a table, in eager mode.

The arguments are the contender, the directory of the weights, the folder of images, the table and
the number of threads.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

Rows = Iterator[tuple[str, list[tuple[int, float]]]]
"""For each image its path, and the numbers and probabilities of its five best classes."""


def timm_rows(weights: Path, images: Path, *, channels_last: bool) -> Rows:
    """Predict as timm's ``inference.py`` does with ``--device cpu --topk 5``."""
    import timm
    from timm.data import create_dataset, create_loader, resolve_data_config

    model = timm.create_model("resnet50", checkpoint_path=str(weights / "model.safetensors"))
    facts = {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"}
    config = resolve_data_config(facts, model=model)
    model = model.eval()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    dataset = create_dataset(root=str(images), name="")
    loader = create_loader(
        dataset,
        batch_size=256,
        use_prefetcher=True,
        num_workers=2,
        device=torch.device("cpu"),
        **config,
    )
    names = dataset.filenames(absolute=True)
    done = 0
    with torch.inference_mode():
        for batch, _ in loader:
            if channels_last:
                batch = batch.contiguous(memory_format=torch.channels_last)
            values, indices = model(batch).softmax(-1).topk(5)
            for value, index in zip(values.tolist(), indices.tolist(), strict=True):
                yield names[done], list(zip(index, value, strict=True))
                done += 1


def transformers_rows(weights: Path, images: Path) -> Rows:
    """Predict as a pipeline of transformers does."""
    from transformers import ConvNextImageProcessor, ResNetConfig, pipeline

    directory = weights / "transformers"
    config = ResNetConfig(
        num_labels=1000,
        depths=[3, 4, 6, 3],
        hidden_sizes=[256, 512, 1024, 2048],
        architectures=["ResNetForImageClassification"],
    )
    config.save_pretrained(directory)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ConvNextImageProcessor(
        size={"shortest_edge": 224}, crop_pct=0.875, resample=3, image_mean=mean, image_std=std
    ).save_pretrained(directory)
    classify = pipeline("image-classification", model=str(directory), device="cpu")
    names = sorted(map(str, images.rglob("*.jpg")))
    results = classify(names, batch_size=16, num_workers=2, top_k=5)
    for name, result in zip(names, results, strict=True):
        yield name, [(int(row["label"].removeprefix("LABEL_")), row["score"]) for row in result]


def main() -> None:
    """Write the table."""
    contender, weights, images, table, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    if contender == "transformers":
        rows = transformers_rows(Path(weights), Path(images))
    else:
        channels_last = contender == "timm-channels-last"
        rows = timm_rows(Path(weights), Path(images), channels_last=channels_last)
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        names = [(f"class_index_{rank}", f"probability_{rank}") for rank in range(1, 6)]
        writer.writerow(["image", *(name for pair in names for name in pair)])
        for name, best in rows:
            writer.writerow([name, *(value for pair in best for value in pair)])


if __name__ == "__main__":
    main()
