"""A classifier gives the same results as the evaluation of its run, for images in any form."""

import dataclasses
import io
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resnet_jax import create_model
from resnet_jax.config import (
    AveragingConfig,
    CheckpointConfig,
    DataConfig,
    DigitsConfig,
    FolderConfig,
    ImageConfig,
    ModelConfig,
    TrainConfig,
)
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference import Classifier, ModelSpec
from resnet_jax.inference.classifier import ImageError
from resnet_jax.inference.stream import Tta, stream
from resnet_jax.models.variants import _VARIANTS
from resnet_jax.training.rundir.checkpoints import Checkpoints
from resnet_jax.training.setup import Run
from tests.training.tiny_train import NETWORKS
from tests.variables import random_variables

NETWORK = "cifar_resnet8"
VERSION_1_RUN = Path(__file__).parents[1] / "training" / "version_1_run"


class Written(NamedTuple):
    """A run directory with checkpoints of steps 0 and 1, and the evaluation of step 1."""

    path: Path
    run: Run
    pixels: np.ndarray
    expected: np.ndarray


def write_run(
    path: Path, data: DataConfig, *, ema_decay: float = 0.0, network: str = NETWORK
) -> Written:
    config = TrainConfig(
        model=ModelConfig(network),
        data=data,
        batch_size=8,
        epochs=1,
        averaging=AveragingConfig(decay=ema_decay),
    )
    run = Run.create(config)
    dataset = run.dataset
    spec = ModelSpec(
        name=config.model.name,
        fields={"dtype": "float32", "zero_init_residual": True},
        num_classes=len(dataset.class_names),
        class_names=dataset.class_names,
        preprocessing=dataset.preprocessing,
        library_version="0",
    )
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config.to_json()))
    (path / "model.json").write_text(json.dumps(spec.to_json()))
    pixels = np.stack([dataset.evaluation.image(i) for i in range(12)])
    inputs = dataset.prepare(jnp.asarray(pixels))
    variables = random_variables(run.model, np.asarray(inputs[:1]))
    state = run.create_state()
    # Evaluation uses the moving averages if there are any. Here they differ from the parameters.
    other = jax.tree.map(lambda leaf: leaf + 0.125, variables)
    state = dataclasses.replace(
        state,
        **(other if ema_decay else variables),
        ema=variables if ema_decay else state.ema,
    )
    with Checkpoints(path / "checkpoints", CheckpointConfig()) as checkpoints:
        for step in (0, 1):
            checkpoints.save(
                dataclasses.replace(
                    state,
                    step=jnp.int32(step),
                    **({} if ema_decay else {"params": scaled(variables["params"], step)}),
                ),
                badness=1.0 - step,
                metadata={"model": spec.to_json()},
            )
    logits = jax.jit(partial(run.model.apply, train=False))(variables, inputs)
    return Written(path, run, pixels, np.asarray(jax.nn.softmax(logits)))


def scaled(params: Any, step: int) -> Any:
    """Return the parameters, with another head for the checkpoint of step 0."""
    return params if step else {**params, "head": jax.tree.map(lambda x: x * 2, params["head"])}


@pytest.fixture(scope="module", autouse=True)
def known_network() -> Iterator[None]:
    """Make the network of the runs known in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_VARIANTS, NETWORK, NETWORKS[NETWORK])
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_run(tmp_path_factory.mktemp("digits") / "run", DigitsConfig())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 6)):
        for name in ("cat", "dog"):
            directory = root / "images" / split / name
            directory.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20 + i, 31, 3), np.uint8)
                Image.fromarray(pixels).save(directory / f"{i}.png")
    config = FolderConfig(str(root / "images"), images=ImageConfig(image_size=16))
    # With this network, batches of one image and of two give the same bits.
    return write_run(root / "run", config, network="cifar_resnet20")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def test_probabilities_of_digits_are_those_of_evaluation(digits: Written, tmp_path: Path) -> None:
    classifier = Classifier.load(digits.path)
    assert classifier.class_names == tuple("0123456789")
    np.testing.assert_allclose(classifier(digits.pixels), digits.expected, atol=2e-6)
    path = tmp_path / "digit.png"
    path.write_bytes(png(digits.pixels[2]))
    mixed = [digits.pixels[0], png(digits.pixels[1]), path, str(path), digits.pixels[3][..., 0]]
    np.testing.assert_allclose(classifier(mixed), digits.expected[[0, 1, 2, 2, 3]], atol=2e-6)


def test_probabilities_of_a_folder_are_those_of_evaluation(folder: Written) -> None:
    classifier = Classifier.load(folder.path)
    files = sorted(folder.path.parent.glob("images/val/*/*.png"))
    assert len(files) == 12
    expected = folder.expected
    np.testing.assert_allclose(classifier(files), expected, atol=2e-6)
    np.testing.assert_allclose(classifier([f.read_bytes() for f in files]), expected, atol=2e-6)
    arrays = [np.asarray(Image.open(file)) for file in files]
    np.testing.assert_allclose(classifier(arrays), expected, atol=2e-6)
    np.testing.assert_allclose(classifier(arrays[0]), expected[:1], atol=2e-6)
    logits = classifier.logits(files)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=2e-6)


def test_predictions_are_in_the_order_of_their_probabilities(folder: Written) -> None:
    classifier = Classifier.load(folder.path)
    (predictions,) = classifier.predict(folder.pixels[0])
    assert {p.class_name for p in predictions} == {"cat", "dog"}
    assert predictions[0].probability > predictions[1].probability
    assert sum(p.probability for p in predictions) == pytest.approx(1, abs=1e-6)
    assert classifier.predict(folder.pixels[:2], top=1)[0] == predictions[:1]
    with pytest.raises(ValueError, match="top"):
        classifier.predict(folder.pixels, top=0)


def test_moving_averages_are_used_where_there_are_any(tmp_path: Path) -> None:
    written = write_run(tmp_path / "run", DigitsConfig(), ema_decay=0.9)
    np.testing.assert_allclose(
        Classifier.load(written.path)(written.pixels), written.expected, atol=2e-6
    )


def test_one_checkpoint_is_enough(digits: Written, tmp_path: Path) -> None:
    copy = tmp_path / "1"
    shutil.copytree(digits.path / "checkpoints" / "1", copy)
    np.testing.assert_allclose(Classifier.load(copy)(digits.pixels), digits.expected, atol=2e-6)
    older = Classifier.from_pretrained(digits.path / "checkpoints" / "0", image_size=8)
    assert np.abs(older(digits.pixels) - digits.expected).max() > 1e-3


def test_any_number_of_images_needs_few_programs() -> None:
    model = create_model("cifar_resnet20", width=4, stage_sizes=(1, 1, 1))
    variables = random_variables(model, np.zeros((1, 8, 8, 3), np.float32))
    preprocessing = Preprocessing(8, 1.0, "pil_bilinear", (0.5,), (0.2,), 3)
    classifier = Classifier(model, variables, preprocessing, [str(i) for i in range(10)])
    images = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)
    whole = classifier(images)
    for count in (0, 1, 2, 3, 5, 11, 16, 33, 64, 70):
        np.testing.assert_allclose(classifier(images[:count]), whole[:count], atol=2e-6)
        assert len(list(stream(classifier, images[:count]))) == count
    assert classifier._forward._cache_size() == 4
    for tta in get_args(Tta):
        assert len(list(stream(classifier, images, tta=tta))) == 70
    with ThreadPoolExecutor(8) as pool:
        for part in pool.map(classifier, [images[i:] for i in range(60, 70)]):
            np.testing.assert_allclose(part, whole[-len(part) :], atol=2e-6)
    assert classifier._forward._cache_size() == 4


def test_unreadable_images_are_all_named(folder: Written, tmp_path: Path) -> None:
    classifier = Classifier.load(folder.path)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(png(folder.pixels[0])[:100])
    absent = tmp_path / "absent.png"
    images = [folder.pixels[0], damaged, b"no image", absent, np.zeros((4, 4, 3), np.float32)]
    with pytest.raises(ImageError, match="4 of 5 images cannot be read") as error:
        classifier(images)
    assert sorted(error.value.reasons) == [1, 2, 3, 4]
    assert str(damaged) in str(error.value)
    assert "float32[4, 4, 3]" in error.value.reasons[4]
    assert "\n" not in str(error.value)


def test_a_flipped_bit_is_found(digits: Written, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(digits.path, copy)
    blobs = (copy / "checkpoints" / "1" / "state").glob("ocdbt.process_0/d/*")
    largest = max(blobs, key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ValueError, match="damaged") as error:
        Classifier.load(copy)
    assert "\n" not in str(error.value)


def test_what_is_no_usable_run_is_refused_in_one_line(digits: Written, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Classifier.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="there is no checkpoint"):
        Classifier.from_pretrained(tmp_path)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(digits.path / "model.json", begun)
    newer = tmp_path / "newer"
    shutil.copytree(digits.path, newer)
    spec = json.loads((newer / "model.json").read_text())
    (newer / "model.json").write_text(json.dumps(spec | {"schema_version": 99}))
    for path, message in (
        (tmp_path, "there is no checkpoint"),
        (begun, "no checkpoint yet"),
        (newer, "schema version 99"),
        (VERSION_1_RUN, "continue the run once with this version"),
        (VERSION_1_RUN / "checkpoints" / "10", "continue the run once with this version"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            Classifier.load(path)
        assert "\n" not in str(error.value)
