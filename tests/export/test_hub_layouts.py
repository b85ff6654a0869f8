"""Directories in the layouts of timm and transformers are what those libraries were tested with."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from resnet_jax import Classifier, list_models
from resnet_jax.export.architecture import name_of
from resnet_jax.export.timm import timm_architecture, timm_config, write_timm
from resnet_jax.export.transformers import (
    transformers_config,
    transformers_preprocessor,
    write_transformers,
)
from resnet_jax.models import create_model
from resnet_jax.weights import load_weights
from tests.comparison import deviation
from tests.export.hub_cases import CASES, VALUES, Case, configuration, digest, images
from tests.export.networks import PREPROCESSING, classifier, pixels, probabilities, tiny
from tests.golden import golden

VALUES_OF: dict[str, Any] = json.loads(VALUES.read_text())


@pytest.mark.parametrize("case", [case for case in CASES if case.quick], ids=lambda case: case.id)
def test_a_directory_is_the_one_that_the_library_read(case: Case, tmp_path: Path) -> None:
    expected = VALUES_OF[case.id]
    case.write(tmp_path)
    assert digest(tmp_path / "model.safetensors") == expected["sha256"]
    assert configuration(tmp_path) == expected["configuration"]
    # Our own reader finds the same network, and it computes what the library computes.
    ours = Classifier.from_pretrained(tmp_path)
    original = case.classifier()
    assert ours.class_names == original.class_names
    if case.layout == "transformers":
        # Its processors name the size before the crop, in whole pixels: 32 of 36.
        assert 32 / ours.preprocessing.crop_fraction == 32 // PREPROCESSING.crop_fraction
        fraction = ours.preprocessing.crop_fraction
        original.preprocessing = dataclasses.replace(original.preprocessing, crop_fraction=fraction)
    assert ours.preprocessing == original.preprocessing
    network = jax.jit(partial(ours.model.apply, train=False))
    found = network(ours.variables, images(ours))
    assert deviation(found, expected["logits"]) < 2e-5


@pytest.mark.parametrize("case", [c for c in CASES if not c.quick], ids=lambda case: case.id)
def test_a_configuration_is_the_one_that_the_library_read(case: Case) -> None:
    expected = VALUES_OF[case.id]["configuration"]["config.json"]
    # The kernel of the stem says where it is, and no other weight matters.
    network = create_model(case.name, num_classes=3, **case.overrides)
    stub: Any = classifier_without_weights(case, network)
    config = (timm_config if case.layout == "timm" else transformers_config)(stub)
    del config["resnet_jax"]["versions"], config["resnet_jax"]["date"]
    assert json.loads(json.dumps(config)) == expected


def classifier_without_weights(case: Case, network: Any) -> Classifier:
    stem = (
        {"conv": {}}
        if network.stem_widths is None or len(network.stem_widths) == 1
        else {"conv1": {}}
    )
    preprocessing = dataclasses.replace(PREPROCESSING, **case.preprocessing)
    return Classifier(network, {"params": {"stem": stem}}, preprocessing, ("cat", "dog", "fox"))


def test_networks_of_timm_are_found_by_their_names() -> None:
    known = golden.members()
    for name in list_models()[::11]:
        model = create_model(name, dropout_rate=0.1, drop_path_rate=0.1)
        if name in known and "_ibn_" not in name:
            # Some names of timm are the same network.
            found = timm_architecture(model)
            assert found == name or create_model(found) == create_model(name)
        else:
            with pytest.raises(ValueError, match="timm has no "):
                timm_architecture(model)


@pytest.mark.parametrize(
    "overrides",
    [{"width": 32}, {"stage_sizes": (1, 1, 1, 1)}, {"bn_epsilon": 1e-3}, {"padding": "same"}],
    ids=str,
)
def test_networks_with_other_fields_have_no_name(overrides: dict[str, Any]) -> None:
    model = create_model("resnet18", **overrides)
    assert name_of(model) is None
    with pytest.raises(ValueError, match="timm has no network with these fields"):
        timm_architecture(model)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("resnet18d", {}),
        ("resnext50_32x4d", {}),
        ("seresnet18", {}),
        ("resnetv2_18", {}),
        ("resnet50_gn", {}),
        ("resnet18", {"bn_epsilon": 1e-3}),
        ("resnet18", {"output_stride": 16}),
        ("cifar_resnet20", {}),
    ],
)
def test_networks_that_transformers_lacks_are_refused(name: str, overrides: dict[str, Any]) -> None:
    network = create_model(name, num_classes=3, **overrides)
    stub = Classifier(network, {"params": {}}, PREPROCESSING, ("cat", "dog", "fox"))
    with pytest.raises(ValueError, match="transformers has no such network: it has a 7x7 stem"):
        transformers_config(stub)


def test_preprocessing_that_transformers_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="no crop mode 'border' for images of 32x32 pixels"):
        transformers_preprocessor(dataclasses.replace(PREPROCESSING, crop_mode="border"))
    with pytest.raises(ValueError, match="no crop mode 'center' for images of 32x48 pixels"):
        transformers_preprocessor(dataclasses.replace(PREPROCESSING, image_size=(32, 48)))


def test_files_are_replaced_only_if_asked(tmp_path: Path) -> None:
    small = tiny()
    (tmp_path / "config.json").write_text("precious")
    with pytest.raises(ValueError, match=r"config\.json exists; give another directory"):
        write_transformers(small, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    write_transformers(small, tmp_path, overwrite=True)
    np.testing.assert_allclose(
        probabilities(Classifier.from_pretrained(tmp_path), pixels(1, small)),
        probabilities(small, pixels(1, small)),
        atol=1e-6,
    )
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; give the path of a directory"):
        write_transformers(small, tmp_path / "file")


def test_int8_is_read_like_any_other_file(tmp_path: Path) -> None:
    original = classifier("test_resnet")
    write_timm(original, tmp_path / "int8", int8=True)
    write_timm(original, tmp_path / "full")
    quantized = load_file(tmp_path / "int8" / "model.safetensors")
    full = load_file(tmp_path / "full" / "model.safetensors")
    kernels = [name for name, array in full.items() if array.ndim > 1]
    for name in full:
        scale = quantized.pop(f"{name}_scale", None)
        assert (scale is not None) == (name in kernels)
        if scale is None:
            np.testing.assert_array_equal(quantized[name], full[name])
            continue
        assert quantized[name].dtype == np.int8
        assert scale.shape == (len(full[name]), *(1,) * (full[name].ndim - 1))
        # Half of a step of each output channel.
        assert np.all(np.abs(quantized[name] * scale - full[name]) <= 0.5001 * scale)
    assert quantized.keys() == full.keys()
    images = pixels(2, original)
    found = probabilities(Classifier.from_pretrained(tmp_path / "int8"), images)
    np.testing.assert_allclose(found, probabilities(original, images), atol=0.02)


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "wrong.safetensors"
    save_file(
        {
            "conv1.weight": np.zeros((4, 3, 7, 7), np.int8),
            "conv1.weight_scale": np.ones(4, np.float32),
        },
        file,
    )
    with pytest.raises(
        ValueError, match=r"wrong\.safetensors: conv1\.weight_scale must be float32\[4, 1"
    ):
        load_weights(create_model("resnet18"), file)
