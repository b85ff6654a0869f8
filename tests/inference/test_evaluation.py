"""Evaluations of folders, ImageNet's test sets and corrupted images, and comparisons."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn import metrics

from resnet_jax import Preprocessing, create_model, imagenet_classes
from resnet_jax.data import DataError
from resnet_jax.data.labeled import LabeledImage, LabeledImages, open_labeled
from resnet_jax.inference import Classifier
from resnet_jax.inference.calibration import Calibration
from resnet_jax.inference.comparison import compare, mcnemar
from resnet_jax.inference.corruptions import corrupt, corrupted
from resnet_jax.inference.evaluation import (
    Evaluation,
    evaluate,
    evaluate_corruptions,
    fit_calibration,
)
from resnet_jax.inference.imagenet_sets import (
    ImageNetC,
    evaluate_imagenet_c,
    open_imagenet_c,
    read_real_labels,
    real_accuracy,
)
from resnet_jax.inference.measures import measure, softmax
from tests.variables import random_variables

SIDE = 16


def make_classifier(class_names: Sequence[str], *, seed: int = 0) -> Classifier:
    model = create_model(
        "resnet18", num_classes=len(class_names), width=8, stage_sizes=(1, 1, 1, 1)
    )
    variables = random_variables(model, np.zeros((1, SIDE, SIDE, 3), np.float32))
    rng = np.random.default_rng(seed)
    head = variables["params"]["head"]
    head["kernel"] = rng.normal(size=head["kernel"].shape).astype(np.float32)
    preprocessing = Preprocessing(
        image_size=SIDE,
        crop_fraction=0.875,
        interpolation="pil_bilinear",
        mean=(0.5,),
        std=(0.25,),
        channels=3,
    )
    return Classifier(model, variables, preprocessing, class_names)


def write_images(directory: Path, count: int, *, seed: int, side: int = 20) -> None:
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (side, side, 3)) // 4 + rng.integers(0, 190, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(directory / f"{i}.png")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return make_classifier(["ant", "bee", "cat"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, with a training and a test split."""
    root = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(("ant", "bee", "cat")):
        write_images(root / "train" / name, 2, seed=10 + i)
        write_images(root / "test" / name, 4 + i, seed=i)
    return root


@pytest.fixture(scope="module")
def evaluated(classifier: Classifier, photos: Path) -> Evaluation:
    return evaluate(classifier, open_labeled(str(photos)))


def test_evaluation_has_the_logits_and_the_measures_of_each_image(
    classifier: Classifier, photos: Path, evaluated: Evaluation
) -> None:
    paths = sorted((photos / "test").rglob("*.png"))
    assert evaluated.split == "test"
    assert list(evaluated.names) == list(map(str, paths))
    assert evaluated.labels.tolist() == [0] * 4 + [1] * 5 + [2] * 6
    logits = classifier.logits(list(map(str, paths)))
    np.testing.assert_allclose(evaluated.logits, logits, atol=1e-5)
    right = logits.argmax(axis=1) == evaluated.labels
    assert evaluated.measures.top1 == right.mean()
    recall = metrics.recall_score(evaluated.labels, logits.argmax(axis=1), average=None)
    np.testing.assert_allclose([row.recall for row in evaluated.classes], recall)
    assert evaluated.images_per_second == pytest.approx(15 / evaluated.seconds)


def test_json_holds_the_measures_and_the_cells_of_the_matrix(evaluated: Evaluation) -> None:
    plain = json.loads(json.dumps(evaluated.to_json(), allow_nan=False))
    assert plain["measures"]["images"] == 15
    assert plain["measures"]["top1"] == evaluated.measures.top1
    assert len(plain["measures"]["intervals"]["nll"]) == 2
    matrix = np.zeros((3, 3), int)
    for i, j, count in plain["confusion_matrix"]:
        matrix[i, j] = count
    np.testing.assert_array_equal(matrix, evaluated.matrix)
    assert [row["name"] for row in plain["classes"]] == ["ant", "bee", "cat"]
    assert plain["certain"] is None


def test_classes_are_found_by_name_and_not_by_position(
    classifier: Classifier, photos: Path, evaluated: Evaluation
) -> None:
    order = [2, 0, 1]
    names = [classifier.class_names[k] for k in order]
    head = classifier.variables["params"]["head"]
    turned = Classifier(
        classifier.model,
        {
            **classifier.variables,
            "params": {
                **classifier.variables["params"],
                "head": {name: array[..., np.array(order)] for name, array in head.items()},
            },
        },
        classifier.preprocessing,
        names,
    )
    found = evaluate(turned, open_labeled(str(photos)))
    assert found.measures[:7] == pytest.approx(evaluated.measures[:7], rel=1e-5)
    np.testing.assert_allclose(found.logits[:, [1, 2, 0]], evaluated.logits, atol=1e-6)
    assert found.labels.tolist() == [1] * 4 + [2] * 5 + [0] * 6


def test_only_the_classes_of_the_data_compete_if_asked_for(
    classifier: Classifier, tmp_path: Path
) -> None:
    for i, name in enumerate(("cat", "ant")):
        write_images(tmp_path / name, 3, seed=i)
    data = open_labeled(str(tmp_path))
    assert data.split == "all"
    found = evaluate(classifier, data, classes="data")
    everything = evaluate(classifier, data)
    assert found.class_names == ("ant", "cat")
    np.testing.assert_array_equal(found.logits, everything.logits[:, [0, 2]])
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert everything.labels.tolist() == [0, 0, 0, 2, 2, 2]


def test_unreadable_images_end_the_evaluation_or_are_left_out(
    classifier: Classifier, photos: Path, evaluated: Evaluation, tmp_path: Path
) -> None:
    for path in (photos / "test").rglob("*.png"):
        copy = tmp_path / path.relative_to(photos / "test")
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = tmp_path / "bee" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    gone = tmp_path / "cat" / "0.png"
    data = open_labeled(str(tmp_path))
    with pytest.raises(DataError, match=r"bee/2.png: .*repair or remove it, or leave such"):
        evaluate(classifier, data)
    gone.unlink()
    with pytest.raises(DataError, match=r"cat/0.png: cannot be read"):
        evaluate(classifier, data)
    found = evaluate(classifier, data, on_unreadable="skip")
    assert set(found.unreadable) == {str(broken), str(gone)}
    kept = np.ones(15, bool)
    kept[[6, 9]] = False
    np.testing.assert_array_equal(found.mask, kept)
    expected = measure(evaluated.logits[kept], evaluated.labels[kept])
    assert found.measures.images == 13
    assert found.measures.nll == pytest.approx(expected.nll, rel=1e-5)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 15 images"):
        evaluate(classifier, data, on_unreadable="skip")


def test_values_that_are_not_finite_are_an_error(classifier: Classifier, photos: Path) -> None:
    head = {name: array * np.nan for name, array in classifier.variables["params"]["head"].items()}
    variables = {**classifier.variables, "params": {**classifier.variables["params"], "head": head}}
    broken = Classifier(
        classifier.model, variables, classifier.preprocessing, classifier.class_names
    )
    with pytest.raises(FloatingPointError, match="not finite for 15 of 15 images"):
        evaluate(broken, open_labeled(str(photos)))


def test_calibration_changes_probabilities_and_not_predictions(
    classifier: Classifier, photos: Path, evaluated: Evaluation
) -> None:
    found = fit_calibration(classifier, evaluated, accuracy=0.3, date="2026-11-28T10:00:00+00:00")
    calibrated = classifier.calibrated(found)
    after = evaluate(calibrated, open_labeled(str(photos)))
    assert after.measures.nll < evaluated.measures.nll
    assert after.measures.top1 == evaluated.measures.top1
    image = str(photos / "test" / "ant" / "0.png")
    expected = softmax(classifier.logits(image) / found.temperature)
    np.testing.assert_allclose(calibrated(image), expected, rtol=1e-5)
    assert found.temperature_fitted_on == found.threshold_fitted_on
    assert found.threshold_fitted_on is not None
    assert found.threshold_fitted_on.images == 15
    assert found.threshold_fitted_on.split == "test"
    certain = after.to_json()["certain"]
    assert certain["accuracy"] >= 0.3
    # A new threshold keeps the temperature, and a new temperature drops the threshold.
    again = fit_calibration(calibrated, after, temperature=False, accuracy=0.3, date="x")
    assert (again.temperature, again.threshold) == (found.temperature, found.threshold)
    assert fit_calibration(calibrated, after, date="x").threshold is None


def test_corrupted_images_are_evaluated_with_the_same_programs(
    classifier: Classifier, photos: Path, evaluated: Evaluation
) -> None:
    programs = classifier._forward._cache_size()
    found = evaluate_corruptions(classifier, open_labeled(str(photos)))
    assert len(found) == 8
    assert {len(row) for row in found.values()} == {5}
    image = photos / "test" / "ant" / "0.png"
    pixels = classifier.preprocessing.on_host(image)
    logits = corrupted(classifier, "contrast", 3).logits(image)
    whole = dataclasses.replace(classifier.preprocessing, crop_fraction=1.0)
    expected = classifier.with_host_preprocessing(whole).logits(corrupt(pixels, "contrast", 3))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(logits - evaluated.logits[0]).max() > 0.01
    assert classifier._forward._cache_size() <= programs + 1
    again = evaluate(corrupted(classifier, "shot_noise", 4), open_labeled(str(photos)))
    assert again.measures == found["shot_noise"][3]


IMAGENET = tuple(entry.name for entry in imagenet_classes())


def synthetic(
    names: Sequence[str], predictions: Sequence[int], labels: Sequence[int] | None = None
) -> Evaluation:
    """Return an evaluation with these predictions among the classes of ImageNet."""
    logits = np.zeros((len(names), 1000), np.float32)
    logits[np.arange(len(names)), predictions] = 5
    labels = list(predictions) if labels is None else list(labels)
    mask = np.ones(len(names), bool)
    return Evaluation(
        "val", "all", IMAGENET, names, np.array(labels), logits, mask, {}, Calibration(), 1.0
    )


def test_real_accuracy_takes_any_label_and_leaves_out_images_without(tmp_path: Path) -> None:
    path = tmp_path / "real.json"
    path.write_text(json.dumps([[3, 7], [], [2], [999]]))
    names = [f"val/n0/ILSVRC2012_val_{i:08d}.JPEG" for i in (4, 1, 2, 3)]
    evaluation = synthetic(names, [999, 7, 5, 1])
    found = real_accuracy(evaluation, read_real_labels(path))
    assert found.images == 3
    assert found.unlabeled == 1
    assert found.top1 == pytest.approx(2 / 3)
    # The classes of the model may have another order.
    turned = dataclasses.replace(
        evaluation, class_names=IMAGENET[::-1], logits=evaluation.logits[:, ::-1]
    )
    assert real_accuracy(turned, read_real_labels(path)) == found
    # Skipped images are left out.
    mask = np.array([True, True, True, False])
    assert real_accuracy(dataclasses.replace(evaluation, mask=mask), read_real_labels(path))[
        ::2
    ] == (1.0, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("{}", "list of lists"), ("[[1000]]", "0 to 999"), ("[3]", "list of")],
)
def test_other_files_than_real_json_are_errors(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "real.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_real_labels(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_real_labels(tmp_path / "absent.json")


def test_real_labels_need_the_names_of_files_and_the_classes_of_imagenet(
    evaluated: Evaluation,
) -> None:
    with pytest.raises(DataError, match="1000 classes of ImageNet-1k"):
        real_accuracy(evaluated, [[1]])
    for name in ("val/cat.jpg", "ILSVRC2012_val_00000002.JPEG"):
        with pytest.raises(DataError, match="not one of the 1 images"):
            real_accuracy(synthetic([name], [1]), [[1]])
    with pytest.raises(DataError, match="none of the 1 images has a label"):
        real_accuracy(synthetic(["ILSVRC2012_val_00000001.JPEG"], [1]), [[]])


@pytest.fixture(scope="module")
def imagenet_classifier() -> Classifier:
    return make_classifier(IMAGENET)


def test_folders_of_imagenet_a_restrict_the_logits_to_their_synsets(
    imagenet_classifier: Classifier, tmp_path: Path
) -> None:
    # Folders in the order of their names; the README beside them is no class.
    chosen = [6, 281, 999]
    for k in chosen:
        write_images(tmp_path / imagenet_classes()[k].synset, 2, seed=k)
    (tmp_path / "README.txt").write_text("")
    data = open_labeled(str(tmp_path))
    found = evaluate(imagenet_classifier, data, classes="data")
    assert found.class_names == tuple(IMAGENET[k] for k in chosen)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    full = evaluate(imagenet_classifier, data)
    assert full.labels.tolist() == [6, 6, 281, 281, 999, 999]
    assert full.measures.top1 < found.measures.top1
    restricted = full.logits[:, chosen].argmax(axis=1)
    assert found.measures.top1 == np.mean(restricted == [0, 0, 1, 1, 2, 2])


def test_folders_of_imagenet_v2_are_numbers(
    imagenet_classifier: Classifier, tmp_path: Path
) -> None:
    # Sorted as text, they would be 10, 2, 9.
    for k in (2, 9, 10):
        write_images(tmp_path / str(k), 1, seed=k)
    found = evaluate(imagenet_classifier, open_labeled(str(tmp_path)))
    assert [Path(name).parent.name for name in found.names] == ["2", "9", "10"]
    assert found.labels.tolist() == [2, 9, 10]


def test_imagenet_c_is_the_mean_over_corruptions_and_severities(
    imagenet_classifier: Classifier, tmp_path: Path
) -> None:
    synsets = [imagenet_classes()[k].synset for k in (0, 5)]
    for corruption in ("fog", "snow"):
        for severity in range(1, 6):
            for i, synset in enumerate(synsets):
                directory = tmp_path / corruption / str(severity) / synset
                write_images(directory, 1, seed=severity + i, side=SIDE)
    sets = open_imagenet_c(str(tmp_path))
    assert {name: len(row) for name, row in sets.items()} == {"fog": 5, "snow": 5}
    found = evaluate_imagenet_c(imagenet_classifier, sets)
    errors = [1 - m.top1 for row in found.measures.values() for m in row]
    assert found.mean_error == pytest.approx(np.mean(errors))
    assert found.mean_corruption_error is None
    # The images are not cropped again.
    path = tmp_path / "fog" / "1" / synsets[0] / "0.png"
    pixels = np.asarray(Image.open(path))
    whole = dataclasses.replace(imagenet_classifier.preprocessing, crop_fraction=1.0)
    assert np.array_equal(whole.on_host(path), pixels)
    logits = imagenet_classifier.with_host_preprocessing(whole).logits(path)
    nll = measure(logits, np.array([0]), resamples=1).nll
    other = imagenet_classifier.with_host_preprocessing(whole).logits(
        tmp_path / "fog" / "1" / synsets[1] / "0.png"
    )
    nll_other = measure(other, np.array([5]), resamples=1).nll
    assert found.measures["fog"][0].nll == pytest.approx((nll + nll_other) / 2, rel=1e-4)


def test_the_mean_corruption_error_is_relative_to_alexnet(evaluated: Evaluation) -> None:
    from resnet_jax.inference.imagenet_sets import _ALEXNET_ERRORS

    def row(error: float) -> list:
        return [evaluated.measures._replace(top1=1 - error)] * 5

    alexnet = {name: row(error) for name, error in _ALEXNET_ERRORS.items()}
    # Further corruptions do not count.
    found = ImageNetC({**alexnet, "saturate": row(0.1)})
    assert found.mean_corruption_error == pytest.approx(1)
    half = ImageNetC({name: row(error / 2) for name, error in _ALEXNET_ERRORS.items()})
    assert half.mean_corruption_error == pytest.approx(0.5)
    assert half.mean_error == pytest.approx(np.mean(list(_ALEXNET_ERRORS.values())) / 2)


def test_other_layouts_than_that_of_imagenet_c_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a directory"):
        open_imagenet_c(str(tmp_path / "absent"))
    with pytest.raises(DataError, match="has no folders"):
        open_imagenet_c(str(tmp_path))
    (tmp_path / "fog" / "1").mkdir(parents=True)
    with pytest.raises(DataError, match="must have the folders 1 to 5"):
        open_imagenet_c(str(tmp_path))


@pytest.mark.parametrize(("a", "b"), [(0, 0), (3, 3), (1, 5), (40, 61), (0, 12), (900, 1100)])
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    expected = binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, a) == mcnemar(a, b)


def test_comparison_counts_and_pairs_the_images() -> None:
    labels = [0, 1, 2, 3, 4, 5]
    names = [f"{i}.jpg" for i in labels]
    a = synthetic(names, [0, 1, 2, 9, 9, 9], labels)
    b = synthetic(names, [0, 1, 9, 3, 9, 8], labels)
    a = dataclasses.replace(a, mask=np.array([False, *[True] * 5]))
    # The classes of B are named by their synsets, in another order.
    b = dataclasses.replace(
        b,
        class_names=tuple(entry.synset for entry in imagenet_classes()[::-1]),
        logits=b.logits[:, ::-1],
        labels=999 - b.labels,
    )
    found = compare(a, b)
    counts = (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong)
    assert counts == (1, 1, 1, 2)
    assert found.p_value == 1
    assert found.a.images == 5
    assert [(row.name, row.right) for row in found.disagreements] == [
        ("2.jpg", "a"),
        ("3.jpg", "b"),
        ("5.jpg", "neither"),
    ]
    assert found.disagreements[1].label == IMAGENET[3]
    rows = list(csv.DictReader(found.to_csv().splitlines()))
    assert rows[0]["prediction_a"] == IMAGENET[2]
    assert rows[0]["prediction_b"] == imagenet_classes()[9].synset
    assert json.loads(json.dumps(found.to_json()))["p_value"] == 1


def test_the_interval_of_a_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 400)
    # B repeats the predictions of A, and is right on 20 more images.
    wrong = rng.uniform(size=400) < 0.5
    a = synthetic(list(map(str, range(400))), np.where(wrong, (labels + 1) % 1000, labels), labels)
    better = wrong & (np.cumsum(wrong) > 20)
    b = synthetic(a.names, np.where(better, (labels + 1) % 1000, labels), labels)
    difference = compare(a, b).differences["top1"]
    assert difference.value == pytest.approx(0.05)
    half = 1.96 * np.sqrt(0.05 * 0.95 / 400)
    assert difference.interval == pytest.approx((0.05 - half, 0.05 + half), abs=0.2 * half)
    # Unpaired, the interval would be about three times as wide, and contain 0.
    assert difference.interval[0] > 0


def test_comparisons_need_the_same_images() -> None:
    with pytest.raises(ValueError, match="the images are not the same"):
        compare(synthetic(["a.jpg"], [1]), synthetic(["b.jpg"], [1]))
    one = synthetic(["a.jpg"], [1])
    with pytest.raises(ValueError, match="no image can be read by both"):
        compare(one, dataclasses.replace(one, mask=np.array([False])))


def test_images_are_found_by_index() -> None:
    image = LabeledImage(np.zeros((2, 2, 3), np.uint8), 0, "x")
    data = LabeledImages("memory", "test", ("a",), 1, lambda _: image)
    assert data[0] is image
    with pytest.raises(IndexError, match="no index 1"):
        data[1]
