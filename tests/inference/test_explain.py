"""Heatmaps are those of pytorch-grad-cam and Captum, and lie where the evidence is."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import create_model, load_weights
from resnet_jax.inference.explain import (
    METHODS,
    explain,
    heatmaps,
    integrated_gradients,
    overlay,
    uncropped,
)
from resnet_jax.inference.fold import fold_batch_norm
from resnet_jax.models import ResNet, stack_blocks
from resnet_jax.models.layers import identity
from tests.comparison import deviation
from tests.inference import explain_cases
from tests.inference.explain_cases import (
    CAM_METHODS,
    CASES,
    NUM_CLASSES,
    STAGES,
    STEPS,
    STRIDE,
    TARGETS,
    VALUES,
    Case,
)
from tests.inference.light_detector import light_detector
from tests.variables import random_variables


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(VALUES) as file:
        return dict(file)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def results(case: Case, stored: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the network of a case gives, by the keys of the stored values."""
    model = create_model(case.name, num_classes=NUM_CLASSES, **case.ours)
    variables = load_weights(model, explain_cases.weights(stored, case.name))
    images, targets = explain_cases.images(), jnp.array(TARGETS)

    # One program compiles faster than one for each result.
    @jax.jit
    def compute(variables: Any, images: Any) -> dict[str, Any]:
        maps = {
            f"{case.name}/{method}/{stage}": explain(
                model, variables, images, targets, method=method, stage=stage
            )
            for method in CAM_METHODS
            for stage in STAGES
        }
        attributions = integrated_gradients(model, variables, images, targets, steps=STEPS)
        return {
            **maps,
            f"{case.name}/integrated-gradients": attributions,
        }

    return jax.tree.map(np.asarray, compute(variables, images))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", CAM_METHODS)
def test_heatmaps_are_those_of_pytorch_grad_cam(
    case: Case, results: Any, stored: dict[str, np.ndarray], method: str, stage: int
) -> None:
    key = f"{case.name}/{method}/{stage}"
    assert results[key].dtype == np.float32
    assert results[key].shape == (2, *explain_cases.SIZE)
    np.testing.assert_allclose(results[key][:, ::STRIDE, ::STRIDE], stored[key], atol=2e-5)
    assert np.std(stored[key]) > 0.1


def test_integrated_gradients_are_those_of_captum(
    case: Case, results: Any, stored: dict[str, np.ndarray]
) -> None:
    key = f"{case.name}/integrated-gradients"
    found, scale = results[key], np.abs(stored[key]).max()
    np.testing.assert_allclose(found[:, ::STRIDE, ::STRIDE], stored[key], atol=2e-5 * scale)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("corner", [(4, 20), (20, 4)])
def test_the_heat_is_where_the_light_is(method: Any, corner: tuple[int, int]) -> None:
    network = light_detector()
    top, left = corner
    images = np.zeros((1, 32, 32, 3), np.float32)
    images[:, top : top + 8, left : left + 8] = 1
    (bright,), (dark,) = (explain(*network, images, k, method=method) for k in (0, 1))
    assert bright[top + 4, left + 4] == pytest.approx(1, abs=1e-5)
    # The map of the last stage has a quarter of the resolution.
    near = np.zeros((32, 32), bool)
    near[top - 4 : top + 12, left - 4 : left + 12] = True
    assert bright[~near].max() < 1e-6
    # The shortcuts of the network skip pixels, whose gradient is 0.
    assert bright.sum() >= (2 * 2 if method == "integrated-gradients" else 8 * 8) - 1e-3
    assert dark.max() == 0


def test_the_class_with_the_largest_logit_is_explained_if_none_is_given() -> None:
    network = light_detector()
    images = np.zeros((2, 32, 32, 3), np.float32)
    images[0, 8:16] = 1
    predicted = heatmaps(*network, images)
    assert predicted.target.tolist() == [0, 1]
    np.testing.assert_allclose(predicted.heat, explain(*network, images, np.array([0, 1])))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_earlier_stages_are_finer(stage: int) -> None:
    network = light_detector()
    images = np.zeros((1, 32, 32, 3), np.float32)
    images[:, 8:12, 16:20] = 1
    heat = explain(*network, images, 0, stage=stage)[0]
    # Around the square is a margin of interpolation of less than a pixel of the map.
    rows, columns = np.nonzero(np.asarray(heat) > 1e-6)
    assert 8 - 2**stage < rows.min() <= 8
    assert 11 <= rows.max() < 12 + 2**stage
    assert 16 - 2**stage < columns.min() <= 16


def test_integrated_gradients_of_an_affine_network_are_complete() -> None:
    # With one point on the line they are already exact, because the gradient is constant.
    model = create_model(
        "cifar_resnet20", num_classes=3, width=4, stage_sizes=(1, 1, 1), act=identity
    )
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    variables = random_variables(model, images)
    targets = np.array([2, 0])
    logits = jax.jit(partial(model.apply, train=False))
    difference = logits(variables, images) - logits(variables, np.zeros_like(images))
    expected = difference[np.arange(2), targets]
    for steps in (1, 4):
        found = integrated_gradients(model, variables, images, targets, steps=steps)
        np.testing.assert_allclose(found.sum((1, 2, 3)), expected, rtol=1e-4)


def test_integrated_gradients_are_more_complete_with_more_points() -> None:
    model = create_model("resnet18", num_classes=3, width=8, stage_sizes=(1, 1))
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = random_variables(model, images)
    targets = np.array([2, 0])
    logits = jax.jit(partial(model.apply, train=False))
    difference = logits(variables, images) - logits(variables, np.zeros_like(images))
    expected = difference[np.arange(2), targets]
    errors = [
        deviation(
            integrated_gradients(model, variables, images, targets, steps=steps).sum((1, 2, 3)),
            expected,
        )
        for steps in (2, 50)
    ]
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3


def test_folded_and_scanned_networks_have_the_same_heatmaps() -> None:
    model = create_model("resnet18", num_classes=3, width=4, stage_sizes=(5, 1))
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = random_variables(model, images)

    def results(model: ResNet, variables: Any) -> list[np.ndarray]:
        @jax.jit
        def compute(variables: Any) -> list[jax.Array]:
            run = partial(explain, model, variables, images)
            maps = [run(method=method, stage=stage) for method in CAM_METHODS for stage in (1, 2)]
            return [*maps, integrated_gradients(model, variables, images, steps=2)]

        return list(map(np.asarray, compute(variables)))

    expected = results(model, variables)
    scanned = model.clone(scan=True), stack_blocks(variables)
    for other in (scanned, fold_batch_norm(*scanned)):
        for found, values in zip(results(*other), expected, strict=True):
            assert np.std(values) > 0.05 * np.abs(values).max()
            assert deviation(found, values) < 1e-4


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("resnet50_clip", {"width": 16, "stem_widths": (8, 8, 16)}),
        ("nf_resnet26", {"width": 8}),
        ("resnet18", {"width": 8, "dtype": jnp.bfloat16, "in_channels": 1}),
    ],
)
def test_other_networks_give_heatmaps(name: str, overrides: dict[str, Any]) -> None:
    model = create_model(name, num_classes=3, stage_sizes=(1, 1), **overrides)
    shape = (2, 32, 32, overrides.get("in_channels", 3))
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    heat = explain(model, random_variables(model, images), images, stage=1)
    assert heat.shape == shape[:3]
    assert heat.dtype == jnp.float32
    np.testing.assert_allclose(heat.min((1, 2)), 0)
    np.testing.assert_allclose(heat.max((1, 2)), 1, atol=1e-3)


def test_grad_cam_of_a_linear_head_is_the_class_activation_map() -> None:
    # With average pooling, the gradient with respect to each pixel is the weight of the head.
    model = create_model("resnet18", num_classes=3, width=8, stage_sizes=(1, 1))
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    variables = random_variables(model, images)
    maps = jax.jit(partial(model.apply, train=False, method="features"))(variables, images)
    activations = np.asarray(maps["stage2"][0])
    cam = np.maximum(activations @ variables["params"]["head"]["kernel"][:, 1], 0)
    # Bilinear interpolation by a factor of 8, along one axis after the other.
    positions = (np.arange(32) + 0.5) / 8 - 0.5
    for _ in range(2):
        cam = np.stack([np.interp(positions, range(4), column) for column in cam.T])
    expected = (cam - cam.min()) / (cam.max() - cam.min())
    np.testing.assert_allclose(explain(model, variables, images, 1)[0], expected, atol=1e-5)


def test_images_do_not_depend_on_each_other() -> None:
    model = create_model("resnet18", num_classes=3, width=8, stage_sizes=(1, 1))
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    variables = random_variables(model, images)
    targets = np.array([2, 0, 1])
    heat = explain(model, variables, images, targets, method="grad-cam++", stage=1)
    for i in range(3):
        alone = explain(
            model, variables, images[i : i + 1], targets[i], method="grad-cam++", stage=1
        )
        np.testing.assert_allclose(heat[i], alone[0], atol=1e-4)


def test_impossible_requests_are_refused() -> None:
    model = create_model("cifar_resnet20", width=4)
    images = np.zeros((2, 8, 8, 3), np.float32)
    run = partial(explain, model, {}, images)
    with pytest.raises(ValueError, match="one of grad-cam, grad-cam"):
        run(method="lime")  # pyrefly: ignore
    with pytest.raises(ValueError, match="stage must be 1 to 3 for this network, but it is 4"):
        run(stage=4)
    with pytest.raises(ValueError, match="integrated gradients have no stage"):
        run(method="integrated-gradients", stage=1)
    with pytest.raises(ValueError, match="target must be 0 to 9, but it is 10"):
        run(10)
    with pytest.raises(ValueError, match=r"one for each of 2 images, but its shape is \[3\]"):
        run(np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        integrated_gradients(model, {}, images, steps=0)
    with pytest.raises(ValueError, match="no head"):
        explain(model.clone(num_classes=0), {}, images)


def test_an_overlay_colors_only_what_is_hot_and_darkens_what_was_not_seen() -> None:
    image = np.full((6, 8, 3), 100, np.uint8)
    heat = np.zeros((6, 8), np.float32)
    heat[2, 3] = 1
    heat[:, 7] = np.nan
    result = overlay(image, heat)
    assert result.shape == (6, 8, 3)
    assert result.dtype == np.uint8
    unchanged = np.ones((6, 8), bool)
    unchanged[2, 3] = unchanged[:, 7] = False
    np.testing.assert_array_equal(result[unchanged], image[unchanged])
    red, green, blue = result[2, 3].tolist()
    assert green > red > 150 > 60 > blue
    np.testing.assert_array_equal(result[:, 7], 40)
    np.testing.assert_array_equal(overlay(image[..., 0], heat), result)
    np.testing.assert_array_equal(overlay(image[..., :1], heat), result)
    coarse = overlay(image, heat[::2, :6:2])
    assert coarse.shape == (6, 8, 3)


def test_a_heatmap_returns_to_its_part_of_the_image() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1
    whole = uncropped(heat, (2.0, 6.0, 8.0, 8.0), (12, 20))
    assert whole.shape == (12, 20)
    seen = ~np.isnan(whole)
    expected = np.zeros((12, 20), bool)
    expected[2:10, 6:14] = True
    np.testing.assert_array_equal(seen, expected)
    assert np.unravel_index(np.nanargmax(whole), whole.shape) == (2, 6)
    # A part that is larger than the image, where the border is padded.
    padded = uncropped(heat, (-4.0, 0.0, 16.0, 16.0), (8, 16))
    assert not np.isnan(padded).any()
    assert padded[:, 8:].max() == 0
