"""Weights are loaded and adapted to the network, and weights that do not fit are refused."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from resnet_jax import create_model, load_weights
from resnet_jax.weights.load import adapt_image_channels, load_matching_weights
from tests.comparison import deviation
from tests.golden import golden


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return golden.state_dict("resnet18")


def test_kernels_are_turned_into_our_layout(weights: dict[str, np.ndarray]) -> None:
    params = load_weights(create_model("resnet18"), weights)["params"]
    np.testing.assert_array_equal(
        params["stem"]["conv"]["kernel"][1, 2, 0, 5], weights["conv1.weight"][5, 0, 1, 2]
    )
    np.testing.assert_array_equal(params["head"]["kernel"], weights["fc.weight"].T)


def test_counters_of_pytorch_are_passed_over(weights: dict[str, np.ndarray]) -> None:
    load_weights(create_model("resnet18"), {**weights, "bn1.num_batches_tracked": np.array(7)})


def test_other_image_channels_follow_from_the_weights(weights: dict[str, np.ndarray]) -> None:
    gray = {**weights, "conv1.weight": weights["conv1.weight"].sum(1, keepdims=True)}
    params = load_weights(create_model("resnet18"), gray)["params"]
    assert params["stem"]["conv"]["kernel"].shape == (7, 7, 1, 64)


def test_a_missing_tensor_is_named(weights: dict[str, np.ndarray]) -> None:
    lacking = {k: v for k, v in weights.items() if k != "layer3.0.downsample.1.running_var"}
    with pytest.raises(ValueError, match=r": 1 missing \(layer3\.0\.downsample\.1\.running_var\)$"):
        load_weights(create_model("resnet18"), lacking)


def test_an_unexpected_tensor_is_named(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r": 1 unexpected \(layer1\.0\.bn1\.gain\)$"):
        load_weights(create_model("resnet18"), {**weights, "layer1.0.bn1.gain": np.ones(64)})


def test_a_misshapen_tensor_is_named(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"fc\.weight has shape \(512, 1000\) .* \(512, 10\)\)$"):
        load_weights(create_model("resnet18", num_classes=10), weights)


def test_weights_of_another_network_are_refused_briefly(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"165 missing \(layer1\.0\.bn3\.running_mean, .*\), 24 "):
        load_weights(create_model("resnet50"), weights)


def test_a_new_head_is_initialized_and_the_rest_loaded(weights: dict[str, np.ndarray]) -> None:
    model = create_model("resnet18", num_classes=7)
    variables = load_weights(model, weights, new_head=True)
    assert variables["params"]["head"]["kernel"].shape == (512, 7)
    assert np.asarray(variables["params"]["head"]["kernel"]).std() > 0
    np.testing.assert_array_equal(
        variables["batch_stats"]["stem"]["norm"]["var"], weights["bn1.running_var"]
    )


@pytest.mark.parametrize("in_channels", [1, 2, 3, 5])
def test_image_channels_are_adapted_as_timm_does(
    weights: dict[str, np.ndarray], in_channels: int
) -> None:
    kernel = weights["conv1.weight"]
    adapted = adapt_image_channels(kernel, in_channels)
    assert adapted.shape == (64, in_channels, 7, 7)
    if in_channels == 1:
        np.testing.assert_allclose(adapted[:, 0], kernel.sum(1), rtol=1e-6)
    else:
        for channel in range(in_channels):
            np.testing.assert_allclose(
                adapted[:, channel], kernel[:, channel % 3] * 3 / in_channels, rtol=1e-6
            )


def test_a_gray_image_gives_the_logits_of_its_copy_in_color(
    weights: dict[str, np.ndarray],
) -> None:
    gray = golden.images(2, 32)[..., :1]
    logits = []
    for channels, images in ((None, np.tile(gray, 3)), (1, gray)):
        model = create_model("resnet18", in_channels=channels)
        apply = jax.jit(model.apply, static_argnames="train")
        logits.append(apply(load_weights(model, weights), images, train=False))
    assert deviation(logits[1], logits[0]) < 1e-5


def test_a_partial_load_reports_what_became_of_every_tensor(
    weights: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    source = {**weights, "extra.weight": np.ones(3), "bn1.bias": np.ones(5)}
    del source["layer4.1.bn2.weight"]
    model = create_model("resnet18")
    variables, report = load_matching_weights(model, source)
    assert sorted(report.initialized) == ["bn1.bias", "layer4.1.bn2.weight"]
    assert report.unused == ("extra.weight",)
    assert len(report.loaded) == len(weights) - 2
    assert not variables["params"]["stem"]["norm"]["bias"].any()
    assert (variables["params"]["stage4"]["block2"]["norm2"]["scale"] == 1).all()

    same = load_weights(model, source, strict=False)
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    assert "2 initialized (" in caplog.text
    assert "1 unused (extra.weight)" in caplog.text


def test_only_what_is_missing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("cifar_resnet20", stage_sizes=(1, 1, 1))
    init = jax.jit(lambda key: model.init(key, np.zeros((1, 64, 64, 3), np.float32), train=False))
    variables = init(jax.random.key(3))
    expected = variables["params"]["head"]

    returned = []
    jit = jax.jit

    def spy(function: Any, *arguments: Any, **options: Any) -> Any:
        if function.__module__ == "resnet_jax.weights.load":
            returned.append(jax.eval_shape(function, jax.random.key(0)))
        return jit(function, *arguments, **options)

    monkeypatch.setattr(jax, "jit", spy)
    loaded = load_weights(model, variables, new_head=True, key=jax.random.key(3))
    head = loaded["params"]["head"]
    jax.tree.map(np.testing.assert_array_equal, head, expected)
    assert [leaf.shape for leaf in jax.tree.leaves(returned)] == [(10,), (64, 10)]


def test_a_head_is_new_only_where_it_must_be(weights: dict[str, np.ndarray]) -> None:
    same = load_weights(create_model("resnet18"), weights, new_head="if_needed")
    np.testing.assert_array_equal(same["params"]["head"]["bias"], weights["fc.bias"])
    other = load_weights(create_model("resnet18", num_classes=7), weights, new_head="if_needed")
    assert other["params"]["head"]["bias"].shape == (7,)
    bare = {name: array for name, array in weights.items() if not name.startswith("fc.")}
    absent = load_weights(create_model("resnet18"), bare, new_head="if_needed")
    assert absent["params"]["head"]["bias"].shape == (1000,)


@pytest.mark.parametrize("strict", [True, False])
def test_a_network_without_a_head_leaves_that_of_the_weights(
    weights: dict[str, np.ndarray], strict: bool
) -> None:
    model = create_model("resnet18", num_classes=0)
    variables = load_weights(model, weights, strict=strict)
    assert "head" not in variables["params"]
    _, report = load_matching_weights(model, weights)
    assert report.unused == ("fc.weight", "fc.bias")
    assert not report.initialized
    with pytest.raises(ValueError, match=r": 1 unexpected \(tail\.weight\)$"):
        load_weights(model, {**weights, "tail.weight": np.ones(3)})


def test_variables_with_a_module_more_are_matched_without_strict(
    weights: dict[str, np.ndarray],
) -> None:
    model = create_model("resnet18")
    variables = load_weights(model, weights)
    variables["params"]["neck"] = {"gamma": np.ones(3)}
    with pytest.raises(ValueError, match=r": 1 unexpected \(params/neck/gamma\)$"):
        load_weights(model, variables)
    loaded, report = load_matching_weights(model, variables)
    assert report.unused == ("params/neck/gamma",)
    np.testing.assert_array_equal(loaded["params"]["head"]["bias"], weights["fc.bias"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": {f"module.{name}": array for name, array in weights.items()}},
        lambda weights: {f"model.{name}": array for name, array in weights.items()},
    ],
    ids=["state_dict", "module", "lightning"],
)
def test_wrappings_of_mappings_are_taken_off(weights: dict[str, np.ndarray], wrap: Any) -> None:
    params = load_weights(create_model("resnet18"), wrap(weights))["params"]
    np.testing.assert_array_equal(params["head"]["bias"], weights["fc.bias"])


def test_wrappings_of_files_are_taken_off(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    wrapped = {f"module._orig_mod.{name}": array for name, array in weights.items()}
    np.savez(tmp_path / "weights.npz", **wrapped)
    save_file(wrapped, tmp_path / "weights.safetensors")
    for name in ("weights.npz", "weights.safetensors"):
        params = load_weights(create_model("resnet18"), tmp_path / name)["params"]
        np.testing.assert_array_equal(params["head"]["bias"], weights["fc.bias"])


@pytest.mark.parametrize("name", ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"])
@pytest.mark.parametrize("shape", [(64,), (2**21, 2**21), (2**20, 2**20, 2, 2), ()], ids=str)
@pytest.mark.parametrize("in_channels", [None, 1])
def test_tensors_of_any_shape_are_misshapen_and_nothing_worse(
    weights: dict[str, np.ndarray], name: str, shape: tuple[int, ...], in_channels: int | None
) -> None:
    model = create_model("resnet18", in_channels=in_channels)
    # These tensors repeat their memory, as PyTorch's `expand` does, and their type would have to be
    # converted.
    tensor = np.broadcast_to(np.float64(1), shape)
    with pytest.raises(ValueError, match=r"1 misshapen \(") as error:
        load_weights(model, {**weights, name: tensor})
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet18.tv_in1k", r"did you mean hf://timm/resnet18\.tv_in1k\?$"),
        ("https://x.org/resnet18.pth", "not supported; download the file, or give hf://"),
    ],
)
def test_sources_that_are_no_files_are_answered_with_a_hint(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_weights(create_model("resnet18"), source)


def test_a_tilde_is_the_home_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "weights.npz", **weights)
    load_weights(create_model("resnet18"), "~/weights.npz")
