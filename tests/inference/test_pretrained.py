"""One call gives network, variables, preprocessing and class names, from any kind of source."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from resnet_jax import (
    Classifier,
    Preprocessing,
    create_model,
    imagenet_classes,
    list_pretrained,
    load_weights,
)
from resnet_jax.inference.hub_layouts.repository import describe
from resnet_jax.inference.pretrained import find
from resnet_jax.weights import hub
from tests.golden import golden

TIMM_CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "pretrained_cfg": {
        "tag": "test",
        "input_size": [3, 48, 48],
        "test_input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "test_crop_pct": 0.95,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
        "num_classes": 1000,
    },
}
# The fields of microsoft/resnet-50.
RESNET_50: dict[str, Any] = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "depths": [3, 4, 6, 3],
    "hidden_sizes": [256, 512, 1024, 2048],
    "embedding_size": 64,
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "id2label": {"1": "dog", "0": "cat", "2": "bird"},
}
CONVNEXT_PROCESSOR: dict[str, Any] = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """Tensors of a ResNet-18 of 1,000 classes."""
    return golden.state_dict("resnet18")


@pytest.fixture(scope="module")
def weight_file(weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(weights, path)
    return path


def image(height: int = 70, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_name_of_the_catalogue_is_enough(
    weights: dict[str, np.ndarray], weight_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(reference: str) -> Path:
        asked.append(reference)
        return weight_file

    monkeypatch.setattr(hub, "fetch", fetch)
    classifier = Classifier.from_pretrained("resnet18.a1_in1k", image_size=32)
    assert asked == ["hf://timm/resnet18.a1_in1k"]
    assert classifier.class_names[281] == "tabby"
    inputs = classifier.preprocess(image())
    assert inputs.shape == (1, 32, 32, 3)
    assert inputs.dtype == jnp.float32
    apply = jax.jit(classifier.model.apply, static_argnames="train")
    expected = apply(load_weights(classifier.model, weights), inputs, train=False)
    logits = classifier.logits(image())
    largest = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, atol=1e-5 * largest)
    embedding = classifier.embed(image())
    np.testing.assert_allclose(
        embedding @ weights["fc.weight"].T + weights["fc.bias"], logits, atol=1e-5 * largest
    )
    assert classifier.embed([]).shape == (0, 512)
    assert classifier.logits([]).shape == (0, 1000)


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        ("test", Preprocessing(224, 0.965, "pil_bilinear", (0.5,), (0.5,), 3)),
        ("train", Preprocessing(176, 0.875, "pil_bilinear", (0.5,), (0.5,), 3)),
        (64, Preprocessing(64, 0.965, "pil_bilinear", (0.5,), (0.5,), 3)),
        ((64, 96), Preprocessing((64, 96), 0.965, "pil_bilinear", (0.5,), (0.5,), 3)),
    ],
)
def test_the_size_of_testing_and_of_training_have_their_own_crop(
    image_size: Any, expected: Preprocessing
) -> None:
    # torchvision's second weights: resized to 232 and cropped to 224.
    found = find("resnet50.tv2_in1k", None, image_size, {}).preprocessing
    assert (found.size, found.crop_fraction, found.interpolation) == (
        expected.size,
        expected.crop_fraction,
        expected.interpolation,
    )
    assert found.mean == (0.485, 0.456, 0.406)


def test_every_entry_of_the_catalogue_has_its_class_names() -> None:
    for entry in list_pretrained():
        found = find(entry.name, None, "test", {})
        assert len(set(found.class_names)) == entry.num_classes == found.model.num_classes
        assert found.preprocessing.image_size == entry.test_size


def test_names_of_imagenet() -> None:
    small, medium, large = (imagenet_classes(count) for count in (1000, 11821, 21843))
    for classes in (small, medium, large):
        assert len({entry.synset for entry in classes}) == len(classes)
        assert len({entry.name for entry in classes}) == len(classes)
    assert small[0] == ("n01440764", "tench")
    assert small[-1] == ("n15075141", "toilet tissue")
    assert medium[0] == ("n00005787", "benthos")
    assert large[0] == ("n00004475", "organism")
    assert set(medium) < set(large)
    with pytest.raises(ValueError, match="1000, 11821 or 21843 classes"):
        imagenet_classes(10)


def test_a_file_needs_the_name_of_its_network(weight_file: Path) -> None:
    with pytest.raises(ValueError, match=r"does not name its network; give its name as well"):
        Classifier.from_pretrained(weight_file)
    plain = find(weight_file, "resnet18", "test", {})
    assert plain.preprocessing == Preprocessing(
        224, 0.875, "pil_bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3
    )
    tagged = find(str(weight_file), "resnet18.a1_in1k", "test", {})
    assert tagged.preprocessing == find("resnet18.a1_in1k", None, "test", {}).preprocessing
    assert tagged.class_names == plain.class_names == find("resnet18.a1_in1k", None, "test", {})[3]


def test_classes_are_counted_in_the_weights(weights: dict[str, np.ndarray]) -> None:
    three = weights | {"fc.weight": weights["fc.weight"][:3], "fc.bias": weights["fc.bias"][:3]}
    classifier = Classifier.from_pretrained(three, "resnet18", image_size=32)
    assert classifier.class_names == ("0", "1", "2")
    names = ["cat", "dog", "bird"]
    named = Classifier.from_pretrained(three, "resnet18", class_names=names, dtype=jnp.bfloat16)
    assert named.class_names == tuple(names)
    assert named.model == create_model("resnet18", num_classes=3, dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match="there are 2 class names, but the weights have 3 classes"):
        Classifier.from_pretrained(three, "resnet18", class_names=names[:2])
    given = Classifier.from_pretrained(three, create_model("resnet18", num_classes=3))
    assert given.class_names == ("0", "1", "2")
    headless = Classifier.from_pretrained(three, "resnet18", num_classes=0)
    assert headless.class_names == ()
    with pytest.raises(ValueError, match="no head and predicts no classes; use embed"):
        headless.predict(image())


def test_one_of_several_networks_is_chosen(weights: dict[str, np.ndarray]) -> None:
    body = {name: array for name, array in weights.items() if not name.startswith("fc.")}
    three = {"fc.weight": weights["fc.weight"][:3], "fc.bias": weights["fc.bias"][:3]}
    # Only one of them is a classifier.
    found = find({"student": weights, "teacher": body}, "resnet18", "test", {})
    assert (found.prefix, found.model.num_classes) == ("student.", 1000)
    both = {"student": weights, "teacher": body | three}
    with pytest.raises(ValueError, match=r"'student\.', 'teacher\.'; choose one .* prefix"):
        Classifier.from_pretrained(both, "resnet18")
    classifier = Classifier.from_pretrained(both, "resnet18", prefix="teacher", image_size=32)
    assert classifier.class_names == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"no tensors of this network under the prefix 'ema\.'"):
        Classifier.from_pretrained(both, "resnet18", prefix="ema")
    with pytest.raises(ValueError, match="the weights: these weights do not fit the model: 100 m"):
        Classifier.from_pretrained({"x": np.ones(3)}, "resnet18")


def repository(path: Path, weight_file: Path, **files: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "model.safetensors").symlink_to(weight_file)
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def test_a_copy_of_a_repository_describes_itself(tmp_path: Path, weight_file: Path) -> None:
    labels = [f"kind {i}" for i in range(1000)]
    path = repository(tmp_path / "mine", weight_file, config=TIMM_CONFIG | {"label_names": labels})
    classifier = Classifier.from_pretrained(path)
    assert classifier.class_names == tuple(labels)
    assert classifier.preprocessing == Preprocessing(
        64, 0.95, "pil_bicubic", (0.5,) * 3, (0.2,) * 3, 3, crop_mode="squash"
    )
    training = find(path, None, "train", {}).preprocessing
    assert (training.image_size, training.crop_fraction) == (48, 0.875)
    assert find(path, None, "test", {}).class_names == tuple(labels)


def test_a_repository_of_the_hub_is_asked_for_its_configuration(
    tmp_path: Path, weight_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository(tmp_path / "mine", weight_file, config=TIMM_CONFIG)
    monkeypatch.setattr("resnet_jax.inference.pretrained.fetch", lambda _: weight_file)
    monkeypatch.setattr(
        "resnet_jax.inference.pretrained.fetch_first",
        lambda _, names: file if (file := path / names[0]).exists() else None,
    )
    found = find("hf://someone/something@main", None, "test", {})
    assert found.weights == weight_file
    assert found.class_names[281] == "tabby"
    (path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json; give the name of its network as well"):
        find("hf://someone/something", None, "test", {})


def test_the_layout_of_timm() -> None:
    description = describe(TIMM_CONFIG | {"num_classes": 2, "label_names": ["cat", "dog"]}, None)
    assert description.model == create_model("resnet18", num_classes=2)
    assert description.class_names == ("cat", "dog")
    # Files from before 2023 have no pretrained_cfg.
    old = {**TIMM_CONFIG["pretrained_cfg"], "architecture": "resnet18", "labels": ["x"] * 1000}
    assert describe(old, None).class_names == ("x",) * 1000
    assert describe(old, None).preprocessing == describe(TIMM_CONFIG, None).preprocessing
    arguments = {"in_chans": 1, "global_pool": "max", "output_stride": 16, "drop_rate": 0.1}
    gray = TIMM_CONFIG | {"model_args": arguments}
    found = describe(gray, None)
    assert found.model == create_model(
        "resnet18", in_channels=1, global_pool="max", output_stride=16
    )
    assert found.preprocessing.channels == 1
    assert (found.preprocessing.mean, found.preprocessing.std) == ((0.5,), pytest.approx((0.2,)))
    with pytest.raises(ValueError, match="model_args that are unknown here: stem_type"):
        describe(TIMM_CONFIG | {"model_args": {"stem_type": "deep"}}, None)


def test_the_layout_of_transformers() -> None:
    description = describe(RESNET_50, CONVNEXT_PROCESSOR)
    assert description.model == create_model("resnet50", num_classes=3)
    assert description.class_names == ("cat", "dog", "bird")
    assert description.preprocessing == Preprocessing(
        224, 0.875, "pil_bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3
    )
    basic = RESNET_50 | {
        "layer_type": "basic",
        "depths": [2, 2],
        "hidden_sizes": [32, 64],
        "embedding_size": 16,
    }
    model = describe(basic, None).model
    assert (model.stage_sizes, model.width, model.stem_widths) == ((2, 2), 32, (16,))
    bit = {
        "architectures": ["BitForImageClassification"],
        "model_type": "bit",
        "depths": [3, 4, 23, 3],
        "width_factor": 3,
        "num_labels": 1000,
    }
    assert describe(bit, None).model == create_model("resnetv2_101x3_bit")
    assert describe(bit | {"architectures": ["BitModel"]}, None).class_names == ()
    for change in (
        {"downsample_in_first_stage": True},
        {"hidden_act": "silu"},
        {"hidden_sizes": [256, 512, 1024, 1024]},
    ):
        with pytest.raises(ValueError, match=r"config\.json has"):
            describe(RESNET_50 | change, None)
    with pytest.raises(ValueError, match="of model_type 'vit'"):
        describe({"model_type": "vit"}, None)


@pytest.mark.parametrize(
    ("fields", "size", "fraction", "mode"),
    [
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, 384, 1.0, "squash"),
        (
            {"size": {"height": 96, "width": 128}, "image_processor_type": "ViT"},
            (96, 128),
            1.0,
            "squash",
        ),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}
            | {"image_processor_type": "BitImageProcessor"},
            224,
            0.875,
            "center",
        ),
        (
            {"size": 448, "do_center_crop": True, "crop_size": {"height": 448, "width": 448}}
            | {"image_processor_type": "BitImageProcessor"},
            448,
            1.0,
            "center",
        ),
    ],
)
def test_image_processors_of_transformers(
    fields: dict[str, Any], size: Any, fraction: float, mode: str
) -> None:
    found = describe(RESNET_50, fields | {"do_normalize": False, "resample": 2}).preprocessing
    assert found == Preprocessing(size, fraction, "pil_bilinear", (0.0,), (1.0,), 3, crop_mode=mode)
    levels = describe(RESNET_50, fields | {"do_rescale": False, "do_normalize": False})
    values = levels.preprocessing.on_device(np.full((1, 2, 2, 3), 200, np.uint8))
    np.testing.assert_allclose(values, 200, rtol=1e-6)


def test_a_name_needs_the_extra_that_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for source in ("resnet18.a1_in1k", "hf://someone/something"):
        with pytest.raises(ImportError, match=r"pip install 'resnet-linen\[weights\]'"):
            Classifier.from_pretrained(source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("resnet50.a1_in1",),
            r"unknown weights 'resnet50\.a1_in1'.*did you mean resnet50\.a1_in1k",
        ),
        (("resnet50",), r"name of a network with \d+ published weights; name one of them, such as"),
        (("cifar_resnet20",), "network without published weights; give a file of weights first"),
        (("xyz",), r"unknown weights 'xyz', and there is no such file: see list_pretrained\(\)"),
        (({},), "tensors do not name their network"),
        (({}, "resnet51"), "unknown model 'resnet51': did you mean"),
        (({}, "resnet50.a1"), r"unknown weights 'resnet50\.a1'"),
    ],
)
def test_what_is_unknown_is_answered_with_the_nearest(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Classifier.from_pretrained(*arguments)
    assert "\n" not in str(error.value)


def test_bad_arguments_are_refused_before_anything_is_downloaded() -> None:
    for path in ("absent.pth", "runs/absent"):
        with pytest.raises(FileNotFoundError, match=f"{path}: there is no such file"):
            Classifier.from_pretrained(path)
    with pytest.raises(FileNotFoundError, match="or give hf://timm/resnet50 for a repository"):
        Classifier.from_pretrained("timm/resnet50")
    for model in (None, "resnet18"):
        with pytest.raises(ValueError, match="web addresses are not supported"):
            Classifier.from_pretrained("https://example.org/resnet18.pth", model)
    with pytest.raises(FileNotFoundError, match="absent: there is no such file"):
        Classifier.from_pretrained("absent", "resnet18")
    with pytest.raises(ValueError, match=r"resnet50\.a1_in1k has 1000 classes, not 10; leave"):
        Classifier.from_pretrained("resnet50.a1_in1k", num_classes=10)
    with pytest.raises(ValueError, match="'test', 'train' or a number of pixels"):
        find("resnet50.a1_in1k", None, "large", {})  # pyrefly: ignore
    with pytest.raises(ValueError, match="there are 1 class names, but the weights have 1000"):
        Classifier.from_pretrained("resnet50.a1_in1k", class_names=["cat"])
    model = create_model("resnet18", in_channels=1, num_classes=2)
    with pytest.raises(ValueError, match="takes 1 channels, but the preprocessing gives 3"):
        Classifier(model, {}, Preprocessing(8, 1.0, "pil_box", (0.5,), (0.2,), 3), ["a", "b"])


def test_images_can_have_every_form(tmp_path: Path) -> None:
    model = create_model("resnet18", width=8, stage_sizes=(1,), num_classes=2)
    preprocessing = Preprocessing(16, 1.0, "pil_bilinear", (0.5,), (0.2,), 3)
    classifier = Classifier(model, {}, preprocessing, ["a", "b"])
    pixels = image(16, 16)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    forms = [pixels, jnp.asarray(pixels), Image.open(path), path, str(path), path.read_bytes()]
    inputs = classifier.preprocess(forms)
    np.testing.assert_allclose(inputs[0], (pixels / 255 - 0.5) / 0.2, atol=2e-6)
    for form, one in zip(forms, inputs, strict=True):
        np.testing.assert_array_equal(one, inputs[0])
        np.testing.assert_array_equal(classifier.preprocess(form), inputs[:1])
    stack = np.stack([pixels, pixels])
    np.testing.assert_array_equal(classifier.preprocess(jnp.asarray(stack)), inputs[:2])
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be read: .*absent\.png: No such"):
        classifier.preprocess([path, tmp_path / "absent.png"])
