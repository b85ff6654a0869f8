"""Augmentation of whole batches on the device: keys, sharding, erasing, mixing, targets."""

import dataclasses
import math
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from resnet_jax.config import AugmentConfig, ConfigError
from resnet_jax.data.augment import augment_batch, batch, normalize_batch
from resnet_jax.data.augment.erasing import random_erase, rectangle
from resnet_jax.data.augment.mixing import cutmix_box, mix, smooth_targets

EVERYTHING = AugmentConfig(
    crop_padding=2,
    crop_padding_mode="reflect",
    policy="randaugment",
    color_jitter=(0.4, 0.4, 0.4, 0.1),
    grayscale=0.2,
    erasing=0.5,
    erasing_max_count=2,
)
MIXED = AugmentConfig(crop_padding=4, mixup_alpha=0.8, cutmix_alpha=1.0)
MIXED_ONE_BY_ONE = dataclasses.replace(MIXED, mix_partner="random", mix_draw="image")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 12, 10, 3), np.uint8)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.arange(16, dtype=np.int32) % 5


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "augment_values.npz") as archive:
        return dict(archive)


@lru_cache
def compiled(config: AugmentConfig, **kwargs: Any) -> Any:
    return jax.jit(
        lambda images, labels, key, positions=None: augment_batch(
            key, images, labels, config, num_classes=5, positions=positions, **kwargs
        )
    )


everything = compiled(EVERYTHING)


@pytest.mark.parametrize(
    "config", [EVERYTHING, MIXED, MIXED_ONE_BY_ONE], ids=["everything", "mixed", "one by one"]
)
def test_pixels_and_targets_do_not_depend_on_the_sharding(
    images: np.ndarray, labels: np.ndarray, config: AugmentConfig
) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    augment, key = compiled(config), jax.random.key(3)
    alone = augment(images, labels, key)
    shared = augment(jax.device_put(images, sharding), jax.device_put(labels, sharding), key)
    assert len(shared[0].sharding.device_set) == 8
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)


def test_on_accelerators_every_device_keeps_to_its_own_images(images: np.ndarray) -> None:
    # Accelerators vectorize over the examples. On CPUs, XLA gathers the batch first.
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    config = AugmentConfig(crop_padding=2, policy="randaugment")
    augment = jax.jit(jax.vmap(partial(batch._augment_example, config)))
    keys = jax.device_put(jax.random.split(jax.random.key(0), 16), sharding)
    program = augment.lower(keys, jax.device_put(images, sharding)).compile()
    assert program.output_shardings.is_equivalent_to(sharding, 4)
    assert not re.search("all-gather|all-reduce|all-to-all|permute", program.as_text())


def test_pixels_do_not_depend_on_the_size_of_the_batch(
    images: np.ndarray, labels: np.ndarray
) -> None:
    key = jax.random.key(0)
    whole, _ = everything(images, labels, key)
    first, _ = everything(images[:4], labels[:4], key, jnp.arange(4))
    np.testing.assert_array_equal(first, whole[:4])
    part, _ = everything(images[8:12], labels[8:12], key, jnp.arange(8, 12))
    np.testing.assert_array_equal(part, whole[8:12])


def test_every_position_and_every_key_changes_an_image_differently(labels: np.ndarray) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 12, 10, 3), np.uint8)
    images = np.repeat(image, 16, axis=0)
    results = [np.asarray(everything(images, labels, jax.random.key(seed))[0]) for seed in (0, 1)]
    assert len(np.unique(np.concatenate(results).reshape(32, -1), axis=0)) == 32


def test_another_key_compiles_nothing(images: np.ndarray, labels: np.ndarray) -> None:
    everything(images, labels, jax.random.key(0))
    before = everything._cache_size()
    for seed in (1, 2):
        everything(images, labels, jax.random.key(seed))
    assert everything._cache_size() == before


@pytest.mark.parametrize("policy", ["timm_randaugment", "trivial", "autoaugment", "three_augment"])
def test_policies_run_on_images_of_one_channel_too(
    images: np.ndarray, labels: np.ndarray, policy: Any
) -> None:
    config = AugmentConfig(policy=policy, mean=(0.5,), std=(0.5,), flip=0.0)
    result, _ = compiled(config)(images[..., :1], labels, jax.random.key(0))
    assert result.shape == (16, 12, 10, 1)
    changed = np.any(result != normalize_batch(jnp.asarray(images[..., :1]), config), (1, 2, 3))
    assert changed.sum() > 2


def test_nothing_on_is_normalisation_and_smoothed_labels(
    images: np.ndarray, labels: np.ndarray
) -> None:
    config = AugmentConfig(flip=0.0)
    pixels, targets = compiled(config, label_smoothing=0.1)(images, labels, jax.random.key(0))
    expected = (images / 255 - config.mean) / config.std
    np.testing.assert_allclose(pixels, expected, atol=1e-5)
    np.testing.assert_array_equal(targets, smooth_targets(jnp.asarray(labels), 5, 0.1))
    np.testing.assert_allclose(np.asarray(targets)[0], [0.92, 0.02, 0.02, 0.02, 0.02], rtol=1e-6)


def test_flips_half(images: np.ndarray, labels: np.ndarray) -> None:
    copies, many = np.repeat(images[:1], 2000, axis=0), np.repeat(labels[:1], 2000)
    config = AugmentConfig(mean=(0,), std=(1 / 255,))
    flipped = np.round(compiled(config)(copies, many, jax.random.key(0))[0]).astype(np.uint8)
    swapped = (flipped == images[0, :, ::-1]).all((1, 2, 3))
    assert (swapped | (flipped == images[0]).all((1, 2, 3))).all()
    assert abs(swapped.mean() - 0.5) < 0.05


def test_erased_rectangles_are_distributed_as_those_of_timm(
    reference: dict[str, np.ndarray],
) -> None:
    def erased(key: jax.Array) -> jax.Array:
        image = random_erase(key, jnp.zeros((40, 32, 1)), AugmentConfig(erasing=1.0))
        inside = image[..., 0] != 0
        rows, columns = inside.any(1), inside.any(0)
        ratio = jnp.log(rows.sum() / columns.sum())
        return jnp.stack([inside.mean(), ratio, rows.argmax(), columns.argmax()])

    values = jax.jit(jax.vmap(erased))(jax.random.split(jax.random.key(0), 10_000))
    expected = reference["erasing_quantiles"]
    ours = np.quantile(values, np.linspace(0, 1, len(expected)), axis=0)
    # Area, logarithm of the ratio, top and left. The extremes of a sample are too noisy to compare.
    for column, tolerance in enumerate((0.01, 0.06, 1.0, 1.0)):
        difference = np.abs(ours - expected)[1:-1, column]
        assert difference.max() <= tolerance, column


def test_erasing_shows_what_its_mode_says() -> None:
    image = jnp.full((24, 24, 3), 9.0)
    keys = jax.random.split(jax.random.key(0), 200)

    def erase(**kwargs: Any) -> np.ndarray:
        function = partial(random_erase, image=image, config=AugmentConfig(**kwargs))
        return np.asarray(jax.jit(jax.vmap(function))(keys))

    constant = erase(erasing=0.3, erasing_mode="const")
    assert set(np.unique(constant)) == {0.0, 9.0}
    assert abs((constant == 0).any((1, 2, 3)).mean() - 0.3) < 0.12
    noise = erase(erasing=1.0)
    drawn = noise[noise != 9.0]
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02
    # Each rectangle has one color, so some images show one color and some two.
    several = erase(erasing=1.0, erasing_mode="rand", erasing_max_count=2)
    counts = [len(np.unique(one.reshape(-1, 3), axis=0)) - 1 for one in several]
    assert set(counts) == {1, 2}


def test_rectangles_equal_those_of_the_code_of_the_paper() -> None:
    config = AugmentConfig(
        erasing=0.5,
        erasing_area=(0.02, 0.4),
        erasing_mode="const",
        erasing_value=(0.4914,),
        erasing_aspect_scale="linear",
    )
    compute = jax.jit(partial(rectangle, height=28, width=28, count=jnp.array(1), config=config))
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(300):
        draws = rng.random((11, 2), np.float32)
        expected, attempts = zhong_rectangle(draws.astype(float), 28, 28)
        np.testing.assert_array_equal(compute(jnp.asarray(draws)), expected)
        rejected += attempts
    # Rectangles that are too large are among the draws.
    assert rejected > 5


def zhong_rectangle(draws: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int]:
    """Return what ``RandomErasing`` of github.com/zhunzhong07/Random-Erasing erases.

    Its code is transcribed, with sl = 0.02, sh = 0.4 and r1 = 0.3, and takes given uniform draws.
    """
    erased = np.zeros((height, width), bool)
    for attempt, (first, second) in enumerate(draws[:-1]):
        target_area = (0.02 + (0.4 - 0.02) * first) * height * width
        aspect_ratio = 0.3 + (1 / 0.3 - 0.3) * second
        h = round(math.sqrt(target_area * aspect_ratio))
        w = round(math.sqrt(target_area / aspect_ratio))
        if w < width and h < height:
            # `random.randint` includes the upper end.
            x1 = int(draws[-1, 0] * (height - h + 1))
            y1 = int(draws[-1, 1] * (width - w + 1))
            erased[x1 : x1 + h, y1 : y1 + w] = True
            return erased, attempt
    return erased, len(draws) - 1


def test_an_erased_rectangle_has_the_given_value() -> None:
    image = jnp.full((24, 24, 3), 9.0)
    config = AugmentConfig(erasing=1.0, erasing_mode="const", erasing_value=(0.25, 0.5, 0.75))
    erased = np.asarray(random_erase(jax.random.key(0), image, config))
    assert {tuple(color) for color in erased.reshape(-1, 3).tolist()} == {
        (9.0, 9.0, 9.0),
        (0.25, 0.5, 0.75),
    }


def test_mixup_goes_with_the_image_from_the_other_end() -> None:
    images = jnp.arange(4.0)[:, None, None, None] * jnp.ones((4, 2, 2, 1))
    targets = jax.nn.one_hot(jnp.arange(4), 4)
    mixed, mixed_targets = mix(jax.random.key(0), images, targets, AugmentConfig(mixup_alpha=0.5))
    share = float(mixed_targets[0, 0])
    assert 0 < share < 1
    np.testing.assert_allclose(
        mixed[:, 0, 0, 0], share * np.arange(4) + (1 - share) * np.arange(4)[::-1], rtol=1e-6
    )
    np.testing.assert_allclose(
        mixed_targets, share * np.eye(4) + (1 - share) * np.eye(4)[::-1], rtol=1e-6
    )


def test_mixed_targets_equal_timm(reference: dict[str, np.ndarray]) -> None:
    targets = smooth_targets(jnp.array([0, 3, 1, 1]), 4, 0.1)
    expected = reference["mixup_targets"]
    np.testing.assert_allclose(0.3 * targets + 0.7 * targets[::-1], expected, rtol=1e-6)


def test_cutmix_replaces_a_box_and_counts_its_pixels() -> None:
    images = jnp.stack([jnp.zeros((24, 20, 1)), jnp.ones((24, 20, 1))])
    targets = jnp.eye(2)
    cut = jax.jit(partial(mix, config=AugmentConfig(cutmix_alpha=1.0)))
    for seed in range(20):
        mixed, mixed_targets = cut(jax.random.key(seed), images, targets)
        first = np.asarray(mixed)[0, :, :, 0]
        assert set(np.unique(first)) <= {0.0, 1.0}
        np.testing.assert_array_equal(mixed[1, :, :, 0], 1 - first)
        rows, columns = first.any(1), first.any(0)
        np.testing.assert_array_equal(first, rows[:, None] & columns)
        np.testing.assert_allclose(mixed_targets[0], [1 - first.mean(), first.mean()], atol=1e-6)


def test_cutmix_areas_are_distributed_as_those_of_timm(reference: dict[str, np.ndarray]) -> None:
    def area(key: jax.Array) -> jax.Array:
        kept_key, box_key = jax.random.split(key)
        return cutmix_box(box_key, 40, 32, jax.random.beta(kept_key, 1.0, 1.0)).mean()

    areas = jax.jit(jax.vmap(area))(jax.random.split(jax.random.key(0), 20_000))
    expected = reference["cutmix_quantiles"][:, 0]
    ours = np.quantile(areas, np.linspace(0, 1, len(expected)))
    assert np.abs(ours - expected)[:-1].max() < 0.02


def test_batches_are_mixed_and_switched_with_their_probabilities() -> None:
    images = jnp.stack([jnp.zeros((8, 8, 1)), jnp.ones((8, 8, 1))])
    config = AugmentConfig(
        mixup_alpha=0.8, cutmix_alpha=0.8, mix_probability=0.6, mix_switch_probability=0.25
    )

    def kind(key: jax.Array) -> jax.Array:
        mixed, _ = mix(key, images, jnp.eye(2), config)
        return jnp.array([(mixed[0] != 0).any(), ((mixed[0] > 0) & (mixed[0] < 1)).any()])

    changed, blended = np.asarray(
        jax.jit(jax.vmap(kind))(jax.random.split(jax.random.key(0), 4000))
    ).T
    assert abs(np.mean(blended) - 0.6 * 0.75) < 0.03
    # CutMix with an empty box changes nothing.
    assert 0.6 * 0.25 * 0.8 < np.mean(changed & ~blended) < 0.6 * 0.25 + 0.03


def test_channels_that_do_not_fit_are_refused(images: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"have 1 channels, but augment\.mean is \(0\.485,"):
        compiled(AugmentConfig())(images[..., :1], labels, jax.random.key(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flip": 1.5}, "flip is a probability"),
        ({"crop_padding": -1}, "crop_padding must be finite and not below 0"),
        ({"policy": "randaugment", "magnitude": 31}, "magnitude must be at most 30 for randaug"),
        ({"policy": "timm_randaugment", "magnitude": 11}, "magnitude must be at most 10 for timm"),
        ({"magnitude_bins": 1}, "magnitude_bins must be at least 2"),
        ({"num_ops": 0}, "num_ops must be above 0"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.6)}, "the hue, must be at most 0.5"),
        ({"color_jitter": (-0.1, 0, 0, 0)}, "color_jitter must not be negative"),
        ({"fill": (256,)}, "fill must be"),
        ({"fill": ()}, "fill must be"),
        ({"std": (0.2, 0, 0.2)}, "std must be above 0"),
        ({"erasing_area": (0.5, 0.1)}, "erasing_area must be a smallest and a largest"),
        ({"erasing_area": (0.5, 1.1)}, "up to 1"),
        ({"erasing_aspect": (0, 1)}, "erasing_aspect must be"),
        ({"erasing_value": (0.5,)}, 'needs erasing_mode "const"'),
        ({"erasing_value": ()}, "erasing_value must be one value"),
        ({"erasing_max_count": 0}, "erasing_max_count must be above 0"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha must be finite"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**fields)
