"""Weights that are saved under PyTorch's names and loaded again are the same bit for bit."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from resnet_jax import create_model, load_weights
from resnet_jax.models import ResNet
from resnet_jax.weights.dialects.torch import torch_name, torch_rules
from resnet_jax.weights.formats.files import read_tensors
from resnet_jax.weights.save import save_weights
from tests.golden import golden
from tests.models.test_variants import member_variables, torch_shape

# There is one network for each kind of layer with its own layout. They are narrow, to be fast.
NARROW = {"width": 32, "num_classes": 10}


def golden_weights(name: str) -> dict[str, np.ndarray]:
    """Return a state dict in PyTorch's shapes; `test_variants` compares them with the reference."""
    rules = torch_rules(create_model(name, **NARROW))
    weights = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(member_variables(name, **NARROW)):
        theirs = torch_name([key.key for key in path], rules)
        weights[theirs] = golden.tensor(theirs, torch_shape(theirs, leaf.shape, rules))
    return weights


@pytest.fixture(scope="module")
def resnet18() -> tuple[ResNet, dict[str, Any]]:
    model = create_model("resnet18", **NARROW)
    return model, load_weights(model, golden_weights("resnet18"))


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "seresnet18",
        "skresnet18",
        "ecaresnet26t",
        "resnest14d",
        "resnetv2_18d",
        "test_resnet",
        "resnet18_ibn_b",
        "nf_seresnet26",
        "resnet50_clip",
    ],
)
def test_import_export_import_is_the_identity(name: str, tmp_path: Path) -> None:
    model, weights = create_model(name, **NARROW), golden_weights(name)
    variables = load_weights(model, weights)
    save_weights(model, variables, tmp_path / "weights.safetensors")
    written = read_tensors(tmp_path / "weights.safetensors")
    assert written.keys() == weights.keys()
    for key, array in weights.items():
        assert written[key].dtype == np.float32
        np.testing.assert_array_equal(written[key], array, strict=True)
    jax.tree.map(np.testing.assert_array_equal, load_weights(model, written), variables)


def test_arrays_of_jax_are_written(resnet18: tuple[ResNet, dict[str, Any]], tmp_path: Path) -> None:
    model, variables = resnet18
    path = tmp_path / "weights.safetensors"
    save_weights(model, jax.tree.map(jax.numpy.asarray, variables), path)
    jax.tree.map(np.testing.assert_array_equal, load_weights(model, read_tensors(path)), variables)
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_files_are_not_overwritten(resnet18: tuple[ResNet, dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"weights\.safetensors: the file exists already; "):
        save_weights(*resnet18, path)
    assert path.read_bytes() == b"precious"


def test_a_failed_write_leaves_nothing(
    resnet18: tuple[ResNet, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        save_weights(*resnet18, tmp_path / "weights.safetensors")
    assert os.listdir(tmp_path) == []


def test_impossible_paths_are_refused(
    resnet18: tuple[ResNet, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"weights\.pth: .* must end in \.safetensors"):
        save_weights(*resnet18, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="its directory does not exist"):
        save_weights(*resnet18, tmp_path / "absent" / "weights.safetensors")


def test_variables_of_another_model_are_refused(
    resnet18: tuple[ResNet, dict[str, Any]], tmp_path: Path
) -> None:
    model, variables = resnet18
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ValueError, match=r"40 missing \(layer1\.0\.bn1\.running_mean, "):
        save_weights(model, {"params": variables["params"]}, path)
    with pytest.raises(ValueError, match=r"fc\.weight has shape"):
        save_weights(model.clone(num_classes=3), variables, path)
    with pytest.raises(ValueError, match="because PyTorch has no variable params/tail/kernel"):
        save_weights(model, {"params": {"tail": {"kernel": np.zeros((2, 2))}}}, path)
    assert not path.exists()
