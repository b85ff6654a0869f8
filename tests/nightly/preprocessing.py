"""Preprocessing and saved models, compared with timm, torchvision and transformers themselves.

    python tests/nightly/preprocessing.py

It needs these libraries in an environment of their own; `tests/golden/regenerate.py` says how to
make one.  It prints the largest differences and ends with an error if one is out of its bound.
"""

import itertools
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification
from transformers import (
    BitConfig,
    BitForImageClassification,
    BitImageProcessor,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    ViTImageProcessor,
)

from resnet_jax import Classifier, Preprocessing
from resnet_jax.inference.hub_layouts.timm import timm_preprocessing
from resnet_jax.inference.hub_layouts.transformers import crop_fraction_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((375, 500), (333, 333), (223, 225), (17, 31), (1, 1), (2, 3), (1200, 40), (40, 1200))


def photo(height: int, width: int) -> Image.Image:
    """Return a smooth image with noise."""
    rng = np.random.default_rng(height * 10_000 + width)
    coarse = rng.integers(0, 256, (max(2, height // 9), max(2, width // 9), 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int32) + rng.integers(-30, 31, (height, width, 3))
    return Image.fromarray(np.uint8(noisy.clip(0, 255)))


def largest(ours: Preprocessing, theirs: Callable[[Image.Image], torch.Tensor]) -> float:
    """Return the largest difference from a transform over all images, in gray levels."""
    differences = []
    for size in SIZES:
        image = photo(*size)
        expected = theirs(image).numpy().transpose(1, 2, 0)
        found = np.asarray(ours.on_device(ours.on_host(image)[None]))[0]
        differences.append((np.abs(found - expected) * STD * 255).max())
    return float(max(differences))


def transforms() -> None:
    """Compare the pixels of every combination of settings."""
    worst = 0.0
    for interpolation, crop, mode, size in itertools.product(
        ("bilinear", "bicubic"),
        (0.875, 0.9, 0.95, 0.965, 1.0),
        ("center", "squash", "border"),
        ((3, 64, 64), (3, 48, 80), (3, 97, 97)),
    ):
        facts = {"interpolation": interpolation, "crop_pct": crop, "crop_mode": mode}
        facts |= {"input_size": size, "mean": MEAN, "std": STD}
        theirs = create_transform(**resolve_data_config(pretrained_cfg=facts))
        worst = max(worst, largest(timm_preprocessing(facts, test_size=True), theirs))
    print(f"timm: {worst:.4f} gray levels")
    for (crop, resize), name in itertools.product(
        ((224, 256), (224, 232), (64, 72)), ("bilinear", "bicubic")
    ):
        interpolation: Any = f"pil_{name}"
        fraction = crop_fraction_of(crop, resize)
        ours = Preprocessing(crop, fraction, interpolation, MEAN, STD, 3)
        theirs = ImageClassification(
            crop_size=crop, resize_size=resize, interpolation=InterpolationMode(name)
        )
        worst = max(worst, largest(ours, theirs))
    print(f"timm and torchvision: {worst:.4f} gray levels")
    assert worst < 0.01


def saved_by_timm() -> None:
    """Compare pixels and logits of models that timm has saved."""
    for name, arguments in (
        ("resnet18.a1_in1k", {}),
        ("resnet18", {"num_classes": 7}),
        ("resnet10t", {"num_classes": 3, "global_pool": "max"}),
        ("resnetv2_18", {"num_classes": 0}),
    ):
        model = timm.create_model(name, pretrained=False, **arguments).eval()
        with tempfile.TemporaryDirectory() as directory:
            save_for_hf(model, directory)
            for size in ("train", "test"):
                classifier = Classifier.from_pretrained(directory, image_size=size)
                config = resolve_data_config({}, model=model, use_test_size=size == "test")
                inputs = create_transform(**config)(photo(375, 500))[None]
                check(name, classifier, model(inputs).detach().numpy())


def saved_by_transformers() -> None:
    """Compare the logits of models that transformers has saved, for our pixels."""
    basic = ResNetConfig(
        depths=[1, 2], hidden_sizes=[32, 64], embedding_size=16, layer_type="basic", num_labels=3
    )
    bottleneck = ResNetConfig(
        depths=[1, 2], hidden_sizes=[32, 64], embedding_size=8, downsample_in_bottleneck=True
    )
    bit = BitConfig(depths=[1, 1], hidden_sizes=[128, 256], embedding_size=32, num_labels=4)
    bit_sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}}
    for model, processor in (
        (
            ResNetForImageClassification(basic),
            ConvNextImageProcessor(size={"shortest_edge": 56}, crop_pct=0.875),
        ),
        (
            ResNetForImageClassification(bottleneck),
            ConvNextImageProcessor(size={"shortest_edge": 384}),
        ),
        (ResNetModel(bottleneck), ViTImageProcessor(size={"height": 48, "width": 64})),
        (BitForImageClassification(bit), BitImageProcessor(**bit_sizes)),
    ):
        with tempfile.TemporaryDirectory() as directory:
            model.eval().save_pretrained(directory)
            processor.save_pretrained(directory)
            classifier = Classifier.from_pretrained(directory)
        # An even margin, because transformers rounds an odd one differently.
        inputs = processor(photo(300, 300), return_tensors="pt")["pixel_values"]
        ours = np.asarray(classifier.preprocess(photo(300, 300))).transpose(0, 3, 1, 2)
        levels = np.abs(ours - inputs.numpy()).max() * max(classifier.preprocessing.std) * 255
        assert levels < 2.01, levels
        outputs = model(torch.from_numpy(ours.copy()))
        pooled = hasattr(outputs, "pooler_output")
        expected = outputs.pooler_output[:, :, 0, 0] if pooled else outputs.logits
        check(type(model).__name__, classifier, expected.detach().numpy(), photo(300, 300))


def check(
    name: str, classifier: Classifier, expected: np.ndarray, image: Image.Image | None = None
) -> None:
    """Compare logits, or embeddings where there is no head."""
    image = photo(375, 500) if image is None else image
    found = classifier.logits(image) if classifier.class_names else classifier.embed(image)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{name} at {classifier.preprocessing.image_size}: {difference:.1e} of the largest value")
    assert difference < 2e-5


if __name__ == "__main__":
    torch.manual_seed(0)
    transforms()
    saved_by_timm()
    saved_by_transformers()
