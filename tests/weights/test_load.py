"""Weights that do not fit are refused, tensor by tensor."""

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
    grey = {**weights, "conv1.weight": weights["conv1.weight"].sum(1, keepdims=True)}
    params = load_weights(create_model("resnet18"), grey)["params"]
    assert params["stem"]["conv"]["kernel"].shape == (7, 7, 1, 64)


def test_a_missing_tensor_is_named(weights: dict[str, np.ndarray]) -> None:
    lacking = {k: v for k, v in weights.items() if k != "layer3.0.downsample.1.running_var"}
    with pytest.raises(ValueError, match=r"missing layer3\.0\.downsample\.1\.running_var$"):
        load_weights(create_model("resnet18"), lacking)


def test_an_unexpected_tensor_is_named(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"unexpected layer1\.0\.bn1\.gain$"):
        load_weights(create_model("resnet18"), {**weights, "layer1.0.bn1.gain": np.ones(64)})


def test_a_misshapen_tensor_is_named(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"fc\.weight has shape \(512, 1000\) .* \(512, 10\)"):
        load_weights(create_model("resnet18", num_classes=10), weights)


def test_weights_of_another_network_are_refused_briefly(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"missing layer1\.0\.bn3\.running_mean; .* more$"):
        load_weights(create_model("resnet50"), weights)


def test_a_new_head_is_initialised_and_the_rest_loaded(weights: dict[str, np.ndarray]) -> None:
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


def test_grey_images_give_what_they_gave_as_colours(weights: dict[str, np.ndarray]) -> None:
    grey = golden.images(2, 32)[..., :1]
    logits = []
    for channels, images in ((None, np.tile(grey, 3)), (1, grey)):
        model = create_model("resnet18", in_channels=channels)
        logits.append(model.apply(load_weights(model, weights), images, train=False))
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
