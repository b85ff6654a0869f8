"""Inference on any number of images: in order, in bounded memory, with few programs."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax import Classifier, Preprocessing, create_model
from resnet_jax.inference.stream import BATCH_SIZE, batch_sizes, stream
from tests.variables import random_variables

NAMES = ("cat", "dog", "fox")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    model = create_model("resnet18", num_classes=3, width=8, stage_sizes=(1, 1, 1, 1))
    variables = random_variables(model, np.zeros((1, 32, 32, 3), np.float32))
    preprocessing = Preprocessing(32, 0.9, "pil_bilinear", (0.5,), (0.2,), 3)
    return Classifier(model, variables, preprocessing, NAMES)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 40, 48, 3), np.uint8)


def test_outputs_come_in_order_and_equal_those_of_the_classifier(
    classifier: Classifier, photos: np.ndarray
) -> None:
    items = list(stream(classifier, iter(photos), features=True))
    assert [item.index for item in items] == list(range(70))
    assert all(item.image is not None and not item.error for item in items)
    np.testing.assert_allclose([i.logits for i in items], classifier.logits(photos), atol=1e-5)
    np.testing.assert_allclose([i.features for i in items], classifier.embed(photos), atol=1e-5)
    (item,) = stream(classifier, photos[:1])
    assert item.features is None
    (item,) = stream(classifier, photos[:1], logits=False, features=True)
    assert item.logits is None


def test_the_number_of_programs_does_not_depend_on_the_number_of_images(
    photos: np.ndarray,
) -> None:
    # Four sizes of batches, for logits alone; views of an image need no more programs.
    model = create_model("cifar_resnet20", num_classes=3, width=4)
    variables = random_variables(model, np.zeros((1, 8, 8, 3), np.float32))
    fresh = Classifier(model, variables, Preprocessing(8, 1.0, "pil_bilinear", (0.5,), (0.2,), 3), NAMES)
    for count in range(0, 70, 3):
        assert len(list(stream(fresh, photos[:count]))) == count
    for tta in ("flip", "five-crop"):
        assert len(list(stream(fresh, photos[:67], tta=tta))) == 67
    assert fresh._forward._cache_size() == 4


@pytest.mark.parametrize("largest", [1, 10, 16, 64, 100])
@pytest.mark.parametrize("total", range(0, 200, 7))
def test_batches_cover_all_images_and_are_at_least_half_full(total: int, largest: int) -> None:
    batches = list(batch_sizes(total, largest))
    assert sum(count for count, _ in batches) == total
    assert all(count <= size <= min(2 * count, largest) for count, size in batches)
    assert {size for _, size in batches} <= {1, 4, 16, 64, largest}


def test_an_endless_iterable_is_read_only_a_few_batches_ahead(
    classifier: Classifier, photos: np.ndarray
) -> None:
    drawn = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal drawn
        for photo in itertools.cycle(photos):
            drawn += 1
            yield photo

    for item in stream(classifier, endless()):
        assert drawn - item.index <= 5 * BATCH_SIZE
        if item.index == 500:
            break
    assert drawn < 500 + 5 * BATCH_SIZE


def test_unreadable_images_are_yielded_with_what_is_wrong(
    classifier: Classifier, photos: np.ndarray, tmp_path: Path
) -> None:
    images = [photos[0], tmp_path / "absent.jpg", b"no image", photos[1], photos[2].astype(float)]
    items = list(stream(classifier, images, features=True))
    assert [bool(item.error) for item in items] == [False, True, True, False, True]
    assert items[1].error == "No such file or directory"
    assert "no whole image, 8 bytes" in items[2].error
    assert "float64[40, 48, 3]" in items[4].error
    for item in items:
        assert (item.logits is None) == (item.features is None) == bool(item.error)
        assert item.image is images[item.index]
    expected = classifier.logits([photos[0], photos[1]])
    np.testing.assert_allclose([items[0].logits, items[3].logits], expected, atol=1e-5)
    assert [item.error != "" for item in stream(classifier, [b""] * 3)] == [True] * 3


def test_flip_averages_an_image_and_its_mirror_image(
    classifier: Classifier, photos: np.ndarray
) -> None:
    # A central crop with margins of even width is mirrored with the image.
    square = photos[:5, :, :40]
    both = classifier.logits(square), classifier.logits(square[:, :, ::-1])
    assert np.abs(both[0] - both[1]).max() > 1e-3
    logits = [item.logits for item in stream(classifier, square, tta="flip")]
    np.testing.assert_allclose(logits, np.mean(both, axis=0), atol=2e-4)


def test_five_crops_are_the_corners_and_the_center(photos: np.ndarray) -> None:
    # Nothing is resized: 32 of 36 pixels are cropped, and the image has 36 rows and 48 columns.
    model = create_model("resnet18", num_classes=3, width=8, stage_sizes=(1, 1, 1, 1))
    variables = random_variables(model, np.zeros((1, 32, 32, 3), np.float32))
    preprocessing = Preprocessing(28, 0.875, "pil_bilinear", (0.5,), (0.2,), 3)
    crops = Classifier(model, variables, preprocessing, NAMES)
    image = photos[0, :32, :48]
    corners = [image[y : y + 28, x : x + 28] for y in (0, 4) for x in (0, 20)]
    exact = [*corners, image[2:30, 10:38]]
    np.testing.assert_array_equal(preprocessing.five_crops(image), exact)
    plain = Preprocessing(28, 1.0, "pil_bilinear", (0.5,), (0.2,), 3)
    expected = Classifier(model, variables, plain, NAMES).logits(exact).mean(axis=0)
    (item,) = stream(crops, [image], tta="five-crop")
    np.testing.assert_allclose(item.logits, expected, atol=1e-5)
    # A network that takes the whole short side would otherwise see the same part five times.
    assert len({crop.tobytes() for crop in plain.five_crops(photos[1, :, :40])}) == 5


def test_the_limit_of_pixels_is_that_of_the_classifier(classifier: Classifier) -> None:
    small = Classifier(
        classifier.model, classifier.variables, classifier.preprocessing, NAMES, max_pixels=99
    )
    image = Image.new("RGB", (10, 10))
    (item,) = stream(small, [image])
    assert item.error.startswith("10 x 10 pixels are more than the limit of 99")
    assert "--max-pixels" in item.error
    (item,) = stream(classifier, [image])
    assert not item.error


def test_impossible_options_are_refused_at_once(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="tta must be one of none, flip, five-crop"):
        stream(classifier, [], tta="ten-crop")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        stream(classifier, [], batch_size=0)
    headless = Classifier(
        classifier.model.clone(num_classes=0),
        classifier.variables,
        classifier.preprocessing,
        (),
    )
    with pytest.raises(ValueError, match="logits=False"):
        stream(headless, [])
