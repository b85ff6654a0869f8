"""The report shows the numbers of a run."""

import dataclasses
import html
import re
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.report.page import _curves, _values
from tests.report.records import evaluation_record, run_record, write


def text_of(page: str) -> str:
    """Return the words of a page, without tags, scripts and styles."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def section(page: str, name: str) -> str:
    """Return the HTML of a section."""
    return page[page.index(f'<section id="{name}"') :].partition("</section>")[0]


def cards(gallery: str) -> list[str]:
    """Return the words below each image of a gallery."""
    return [text_of(card) for card in re.findall(r'<li class="card">.*?</li>', gallery, re.DOTALL)]


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_are_mistakes_and_the_worst_come_first(tmp_path: Path, channels: int) -> None:
    evaluation = evaluation_record(channels=channels)
    page = write(tmp_path / "report.html", run_record(evaluation=evaluation))
    mistakes = section(page, "mistakes")
    worst, unsure = mistakes.split("Least confident correct")
    # exp(9) / (exp(9) + 4) and exp(5) / (exp(5) + 4); the correct images are not here.
    expected = [
        "predicted class0 100.0% true class1 0.0% photos/1.jpg",
        "predicted class2 97.4% true class1 0.7% photos/0.jpg",
    ]
    assert cards(worst) == expected
    assert worst.count('src="data:image/png;base64,') == 2
    assert unsure.count('src="data:image/png;base64,') == 12
    assert "photos/1.jpg" not in unsure
    assert "photos/0.jpg" not in unsure
    assert "Errors on the test images: 2 of 40" in text_of(page)


def test_the_most_confident_mistakes_are_others_than_the_worst(tmp_path: Path) -> None:
    # 20 images of class 0. Class 1 gets 30 to 49 %, and class 0 the less, the less class 1 gets.
    confidence = np.linspace(0.3, 0.49, 20)
    rest = 1 - confidence - 0.1 * confidence
    shares = np.stack([0.1 * confidence, confidence, *[rest / 3] * 3], axis=1)
    evaluation = evaluation_record(
        num_images=20, labels=np.zeros(20, np.int64), logits=np.log(shares).astype(np.float32)
    )
    page = write(tmp_path / "report.html", run_record(evaluation=evaluation))
    worst, confident = section(page, "mistakes").split("Most confident mistakes")
    assert [re.findall(r"\d+(?=\.jpg$)", card)[0] for card in cards(worst)] == list(
        map(str, range(12))
    )
    assert [re.findall(r"\d+(?=\.jpg$)", card)[0] for card in cards(confident)] == list(
        map(str, range(19, 7, -1))
    )


def test_a_perfect_run_says_so(tmp_path: Path) -> None:
    record = evaluation_record()
    perfect = evaluation_record(logits=np.eye(5, dtype=np.float32)[record.labels])
    words = text_of(write(tmp_path / "report.html", run_record(evaluation=perfect)))
    assert "There are none: every image was classified correctly." in words
    assert "Errors on the test images: 0 of 40" in words


def test_the_images_of_a_cell_are_behind_it(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html", run_record())
    matrix = page[page.index('<table class="matrix') :].partition("</table>")[0]
    assert '<a href="#cell-1-2"' in matrix
    cell = page[page.index('id="cell-1-2"') :].partition("Close")[0]
    assert "1 image, " in text_of(cell)
    assert "photos/0.jpg" in cell
    assert "photos/1.jpg" not in cell
    # Every link leads somewhere.
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors


def test_many_classes_get_their_confusions_instead_of_a_matrix(tmp_path: Path) -> None:
    evaluation = evaluation_record(200)
    page = write(tmp_path / "report.html", run_record(evaluation=evaluation))
    assert '<table class="matrix' not in page
    frequent = page[page.index("Most frequent confusions") :]
    assert "class1 class2 1" in text_of(frequent)
    assert 'id="cell-1-2"' in page
    assert 'id="cell-1-1"' not in page, "correct predictions are no confusions"


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>'\""
    evaluation = evaluation_record(class_names=[attack] * 5, name=lambda _: attack)
    record = run_record(title=attack, facts={attack: attack}, evaluation=evaluation)
    page = write(tmp_path / "report.html", record)
    assert "<script>alert" not in page
    assert page.count("<script") == 2 + 4, "the script and one call, and the data of four charts"


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html", run_record())
    for reference in ('src="http', 'href="http', "<link", "url(", "@import", "fetch("):
        assert reference not in page


def test_the_same_run_gives_the_same_report(tmp_path: Path) -> None:
    pages = [write(tmp_path / f"{i}.html", run_record()) for i in range(2)]
    assert pages[0] == pages[1]


def test_skipped_images_are_counted_nowhere(tmp_path: Path) -> None:
    evaluation = evaluation_record(skipped=1)
    page = write(tmp_path / "report.html", run_record(evaluation=evaluation))
    # Without the mask there would be a second error: image 0 of class 1 is taken for class 2.
    assert "Errors on the test images: 1 of 39" in text_of(page)
    assert "Unreadable images, which are left out of all counts: 1." in text_of(page)
    assert 'id="cell-1-2"' not in page
    assert "photos/0.jpg" not in page


def test_what_is_absent_has_no_section(tmp_path: Path) -> None:
    sections = {"run", "curves", "measures", "confusions", "mistakes", "classes", "calibration"}
    sections |= {"kernels", "time", "configuration"}
    page = write(tmp_path / "all.html", run_record())
    assert set(re.findall(r'<section id="([^"]+)"', page)) == sections
    assert re.findall(r'<li><a href="#([^"]+)"', page) == re.findall(r'<section id="([^"]+)"', page)
    nothing = {"facts": {}, "records": (), "goodput": {}, "operations": ()}
    page = write(
        tmp_path / "evaluation.html",
        run_record(**nothing, config={}, kernels=None),
    )
    present = {"measures", "confusions", "mistakes", "classes", "calibration"}
    assert set(re.findall(r'<section id="([^"]+)"', page)) == present
    assert "Evaluation report" in page
    page = write(tmp_path / "curves.html", run_record(evaluation=None, kernels=None))
    assert set(re.findall(r'<section id="([^"]+)"', page)) == sections - present - {"kernels"}


def test_classes_have_their_measures(tmp_path: Path) -> None:
    # Class a: 2 of 3 images right, 1 wrongly predicted; class b: 1 of 2 right; class c: no images.
    labels = np.array([0, 0, 0, 1, 1])
    logits = np.zeros((5, 3), np.float32)
    logits[range(5), [0, 0, 1, 1, 0]] = 1
    evaluation = evaluation_record(
        3,
        5,
        labels=labels,
        logits=logits,
        class_names=["a", "b", "c"],
    )
    page = write(tmp_path / "report.html", run_record(evaluation=evaluation))
    rows = re.findall(r"<tr data-name.*?</tr>", section(page, "classes"), re.DOTALL)
    assert [text_of(row) for row in rows] == [
        "b predicted a: 1 2 1 50.0% 50.0% 50.0%",
        "a predicted b: 1 3 1 66.7% 66.7% 66.7%",
        "c 0 0",
    ]


def test_heatmaps_are_those_of_the_predicted_classes(tmp_path: Path) -> None:
    asked = []

    def explain(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        asked.append((images.shape, classes.tolist()))
        return np.zeros(images.shape[:3], np.float32)

    evaluation = evaluation_record(explain=explain)
    page = write(tmp_path / "report.html", run_record(evaluation=evaluation))
    assert asked == [((2, 8, 8, 3), [2, 0])], "the two mistakes, once"
    assert section(page, "mistakes").count('class="heat"') == 2


def test_heatmaps_that_fail_do_not_cost_the_report(tmp_path: Path) -> None:
    def explain(*_: np.ndarray) -> np.ndarray:
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")

    evaluation = evaluation_record(explain=explain)
    page = write(tmp_path / "report.html", run_record(evaluation=evaluation))
    words = "Grad-CAM could not be computed: RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert words in text_of(page)
    assert "more" not in text_of(section(page, "mistakes")).split()


def test_the_configuration_shows_what_differs_from_the_defaults(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html", run_record())
    rows = re.findall(r"<tr><th scope=\"row\"><code>.*?</tr>", section(page, "configuration"))
    changes = [text_of(row.replace("<wbr>", "")) for row in rows]
    assert "model.name cifar_resnet20 none, must be given" in changes
    assert not [change for change in changes if change.startswith("optimizer.momentum")]
    assert any(change.startswith("epochs ") and change.endswith(" 90.0") for change in changes)
    older = write(tmp_path / "older.html", run_record(config={"schema_version": 99}))
    assert "Fields that differ" not in older
    assert "schema_version" in older


def test_the_arrays_of_an_evaluation_must_fit_each_other() -> None:
    with pytest.raises(ValueError, match="one entry per image, but they have 39, 40 and 40"):
        evaluation_record(labels=np.zeros(39, np.int32))
    with pytest.raises(ValueError, match="one column for each of 4 class names"):
        evaluation_record(class_names=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="no image could be read"):
        evaluation_record(skipped=40)


def test_a_large_evaluation_stays_small(large_report: Path) -> None:
    page = large_report.read_text()
    # Its images are noise, which compresses worst.
    assert large_report.stat().st_size < 15e6
    assert 600 < page.count("<img") <= 36 + 600 + 1
    assert section(page, "classes").count("<tr data-name") == 1000


def test_top5_is_shown_where_it_says_something(tmp_path: Path) -> None:
    record = run_record()

    def with_top5(share: float) -> str:
        records = [{**row, "top5": share} for row in record.records]
        return write(tmp_path / "report.html", dataclasses.replace(record, records=records))

    page = with_top5(0.875)
    assert "<h3>Top-5 accuracy</h3>" in page
    assert "test top-5 (%)" in section(page, "curves")
    assert "87.5" in section(page, "curves")
    # With five classes every label is among the five best.
    assert "<h3>Top-5 accuracy</h3>" not in with_top5(1.0)


def test_averages_and_raw_weights_and_skipped_steps_are_shown() -> None:
    records = [
        {"step": 1, "kind": "train", "skipped_steps": 1, "images_per_second": 10.0},
        {"step": 2, "kind": "train", "loss": 2.0, "top1": 0.5, "skipped_steps": 1},
        {"step": 2, "kind": "test", "loss": 1.0, "top1": 0.5, "raw_loss": 3.0, "raw_top1": 0.25},
    ]
    loss, top1, *_ = _curves(records)
    assert [(line.name, list(line.y)) for line in loss.series] == [
        ("train", [2.0]),
        ("test", [1.0]),
        ("test, raw weights", [3.0]),
    ]
    assert [list(line.y) for line in top1.series] == [[50], [50], [25]]
    headings, rows = _values(records)
    assert rows[1][headings.index("test raw top-1 (%)")] == "25"
    assert [row[headings.index("skipped steps")] for row in rows] == ["1", "1"]
