"""Weights that do not fit are refused, tensor by tensor."""

import numpy as np
import pytest

from resnet_jax import create_model, load_weights
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
