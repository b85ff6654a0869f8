"""The pages in a browser: with a mouse, with a keyboard, without a script, without sight."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from resnet_jax.report import LineChart, RunRecord, Series
from resnet_jax.report.preview import write_preview_page
from tests.report.records import PHOTO_NAMES, mistaken, run_record, write
from tests.report.test_runs import write_page
from tests.training.test_preview import preview

# Milliseconds. Slow machines take longer than the usual 5,000.
expect.set_options(timeout=60_000)

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports with 3, 10, 50 and 200 classes, one without images, a comparison, and a preview."""
    directory = tmp_path_factory.mktemp("pages")
    names = {3: list(PHOTO_NAMES), 10: list("0123456789")}
    found = {name: directory / f"{name}.html" for name in ("runs", "curves", "preview")}
    write_page(found["runs"])
    write(found["curves"], run_record(evaluation=None, kernels=None))
    write_preview_page(found["preview"], preview(1000))
    rates = [10.0**power for power in range(-6, 1)]
    chart = LineChart("Loss", "rate", [Series("loss", rates, range(7))], log_x=True)
    found["log"] = directory / "log.html"
    write(found["log"], RunRecord("Range test", charts=[chart]))
    for count in (3, 10, 50, 200):
        evaluation = mistaken(
            count,
            4 * count + 100,
            names.get(count, [f"class number {i} with a long name" for i in range(count)]),
            size=64 if count < 50 else 16,
        )
        found[str(count)] = directory / f"{count}.html"
        write(found[str(count)], run_record(evaluation=evaluation))
    return found


@pytest.fixture
def visit(browser: Browser, pages: dict[str, Path]) -> Iterator[Visit]:
    """A function that opens a page, given options of a browser context. Errors fail the test."""
    contexts: list[BrowserContext] = []
    errors: list[Any] = []

    def visit(page: str | Path, *, width: int = 1200, **options: Any) -> Page:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, reduced_motion="reduce", **options))
        opened = contexts[-1].new_page()
        opened.set_default_timeout(60_000)
        opened.on("pageerror", lambda error: errors.append(error))
        opened.goto((pages[page] if isinstance(page, str) else page).as_uri())
        return opened

    yield visit
    for context in contexts:
        context.close()
    assert errors == []


def background(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


# Every kind of page in one of the schemes; they share all their colors.
@pytest.mark.parametrize(
    ("name", "scheme"),
    [("10", "light"), ("10", "dark"), ("200", "dark"), ("runs", "light"), ("preview", "dark")],
)
def test_people_who_do_not_see_the_page_can_use_it(visit: Visit, name: str, scheme: str) -> None:
    page = visit(name, color_scheme=scheme)
    page.evaluate("document.querySelector('.matrix td.wrong a, .frequent a')?.click()")
    found = Axe().run(page).response
    problems = [
        (rule["id"], rule["help"], [node["html"][:200] for node in rule["nodes"][:3]])
        for rule in found["violations"]
    ]
    assert not problems, json.dumps(problems, indent=2)
    assert len(found["passes"]) > 20, "the rules were applied"


@pytest.mark.parametrize("name", ["3", "10", "50", "200", "curves", "runs", "preview"])
def test_a_narrow_window_does_not_scroll_sideways(visit: Visit, name: str) -> None:
    page = visit(name, width=400)
    page.evaluate("document.querySelector('.matrix td.wrong a, .frequent a')?.click()")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    # Nothing spills out of its card either.
    spilled = page.evaluate(
        """[...document.querySelectorAll(".card:not(.scroll), .headline *, .gallery *")].filter(
            (part) => part.offsetParent && part.scrollWidth > part.clientWidth + 1
                      && getComputedStyle(part).display !== "inline"
        ).map((part) => part.outerHTML.slice(0, 200))"""
    )
    assert spilled == []


@pytest.mark.parametrize(("name", "width"), [("3", 1200), ("3", 400), ("10", 400), ("50", 1200)])
def test_the_names_of_classes_do_not_overlap(visit: Visit, name: str, width: int) -> None:
    page = visit(name, width=width)
    boxes = page.evaluate(
        """[...document.querySelectorAll(".matrix thead th span")].map((span) => {
            const box = span.getBoundingClientRect();
            return [box.left, box.right];
        })"""
    )
    assert len(boxes) == int(name)
    assert all(a[1] <= b[0] + 0.5 for a, b in itertools.pairwise(boxes)), boxes
    # The matrix has the width of its card, or its largest useful width.
    shares = page.evaluate(
        """[document.querySelector(".matrix").offsetWidth,
            document.querySelector(".matrix-card").clientWidth]"""
    )
    assert shares[0] >= min(0.8 * shares[1], 58 * int(name))


def test_a_cell_shows_its_images(visit: Visit) -> None:
    page = visit("3")
    expect(page.locator(".cell:visible")).to_have_count(0)
    cell = page.locator(".matrix td.wrong a").first
    count = int(cell.inner_text())
    cell.click()
    expect(cell).to_have_attribute("aria-current", "true")
    opened = page.locator(".cell:visible")
    expect(opened).to_contain_text(f"{count} image")
    expect(opened.locator("img")).to_have_count(min(count, 12))
    assert opened.locator("img").first.evaluate("(image) => image.naturalWidth") == 64
    # Another cell takes its place. Escape closes it, and the cell has the focus again.
    other = page.locator(".matrix td.right a").first
    other.press("Enter")
    expect(opened.locator("h3")).to_have_text([f"{PHOTO_NAMES[0]}, predicted correctly"])
    expect(page.locator("[aria-current]")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(opened).to_have_count(0)
    expect(other).to_be_focused()


def test_the_matrix_takes_the_chosen_order(visit: Visit) -> None:
    page = visit("3")

    def names(part: str) -> list[str]:
        return page.locator(f".matrix {part} th").evaluate_all("(all) => all.map((th) => th.title)")

    for order in ("name", "size", "error", "index"):
        page.locator(f"input[name=order][value={order}]").check(force=True)
        assert names("thead") == names("tbody")
        diagonal = page.locator(".matrix tbody tr").evaluate_all(
            "(rows) => rows.map((row, i) => row.cells[i + 1].className)"
        )
        assert diagonal == ["right"] * 3
        if order in ("name", "index"):
            expected = list(PHOTO_NAMES)
            assert names("tbody") == (sorted(expected) if order == "name" else expected)
        else:
            values = page.locator(".matrix tbody tr").evaluate_all(
                f"(rows) => rows.map((row) => Number(row.dataset.{order}))"
            )
            assert values == sorted(values, reverse=True)
            assert len(set(values)) > 1


def test_the_table_of_classes_sorts_and_filters(visit: Visit) -> None:
    page = visit("200")

    def column(number: int) -> list[str]:
        rows = page.locator("#class-table tbody tr")
        return rows.evaluate_all(f"(all) => all.map((row) => row.cells[{number}].dataset.value)")

    f1 = [float(value) for value in column(5) if value]
    assert f1 == sorted(f1)
    head = page.locator("#class-table th:nth-child(2)")
    for order in ("descending", "ascending"):
        head.locator("button").press("Enter")
        sizes = list(map(int, column(1)))
        assert sizes == sorted(sizes, reverse=order == "descending")
        expect(page.locator("#class-table [aria-sort]")).to_have_count(1)
        expect(head).to_have_attribute("aria-sort", order)
    page.locator("#filter").fill(" Number 42 with")
    expect(page.locator("output[for=filter]")).to_have_text("1 of 200 classes")
    shown = page.locator("#class-table tbody tr:visible")
    expect(shown).to_have_count(1)
    expect(shown).to_have_attribute("data-name", "class number 42 with a long name")


def test_the_colors_are_those_of_the_system_or_of_the_reader(visit: Visit) -> None:
    page = visit("3", color_scheme="light")
    light = background(page)
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    assert light != dark
    page.locator("#scheme-light").press("Space")
    assert background(page) == light
    # The choice is kept.
    page.reload()
    assert background(page) == light
    page.emulate_media(color_scheme="light")
    page.locator("#scheme-dark").press("Space")
    assert background(page) == dark
    # Paper is white.
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(23, 27, 34)"


def test_the_curves_show_their_values(visit: Visit) -> None:
    page = visit("3")
    area = page.locator(".area").first
    area.hover()
    tip = area.locator(".tip")
    # In the middle of 60 steps; the loss is 2 / step.
    step = int(tip.inner_text().split()[1])
    assert 29 <= step <= 32
    assert f"(raw {2 / step:.4g})" in tip.inner_text()
    assert f"{2 / 40:.4g} at 40" in tip.inner_text() or f"{2 / 20:.4g} at 20" in tip.inner_text()
    expect(page.locator(".tip")).to_have_count(4)
    # With the keyboard: the last step, and the one before.
    slider = page.locator("#inspect")
    slider.press("End")
    slider.press("ArrowLeft")
    expect(page.locator("output[for=inspect]")).to_have_text("59")
    assert f"raw {100 * (1 - 1 / 59):.4g}%" in str(slider.get_attribute("aria-valuetext"))
    # Without smoothing both lines are the same.
    raw, smooth = (page.locator(f".line .{kind}").first for kind in ("raw", "smooth"))
    assert raw.get_attribute("d") != smooth.get_attribute("d")
    page.locator("#smoothing").press("Home")

    def points(path: str | None) -> list[float]:
        return [float(number) for number in re.findall(r"[\d.]+", str(path))]

    difference = zip(points(raw.get_attribute("d")), points(smooth.get_attribute("d")), strict=True)
    assert max(abs(a - b) for a, b in difference) < 0.11


def test_the_middle_of_a_logarithmic_axis_is_the_geometric_mean(visit: Visit) -> None:
    page = visit("log")
    area = page.locator(".area")
    area.hover()
    assert area.locator(".tip").inner_text().split()[:4] == ["rate", "0.001", "loss", "3"]
    box, point = area.bounding_box(), area.locator(".point").bounding_box()
    assert box is not None
    assert point is not None
    center = point["x"] + point["width"] / 2
    assert center == pytest.approx(box["x"] + box["width"] / 2, abs=2)


def test_heatmaps_are_shown_on_demand(visit: Visit) -> None:
    page = visit("3")
    plain = page.locator("#mistakes img.plain:visible")
    heat = page.locator("#mistakes img.heat:visible")
    count = plain.count()
    assert count > 0
    expect(heat).to_have_count(0)
    page.locator("#heat").press("Space")
    expect(heat).to_have_count(count)
    expect(plain).to_have_count(0)


def test_every_control_has_a_visible_focus(visit: Visit) -> None:
    page = visit("3")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
                const focused = document.activeElement;
                const drawn = focused.type === "radio" ? focused.nextElementSibling : focused;
                return [focused.id || focused.className || focused.tagName,
                        getComputedStyle(drawn).outlineStyle];
            }"""
        )
        assert outline != "none", name
        seen.add(name)
    assert {"skip", "scheme-auto", "inspect", "smoothing", "card scroll tall"} - seen <= {
        "card scroll tall"
    }


def test_the_page_can_be_read_without_its_script(visit: Visit) -> None:
    page = visit("3", java_script_enabled=False)
    # There is nothing that does nothing.
    expect(page.locator(".scripted:visible")).to_have_count(0)
    expect(page.locator(".chart svg:visible")).to_have_count(4)
    expect(page.locator("#class-table tbody tr:visible")).to_have_count(3)
    # Links and choices still work.
    page.locator(".matrix td.wrong a").first.click()
    expect(page.locator(".cell:visible")).to_have_count(1)
    page.locator("#heat").press("Space")
    assert page.locator("#mistakes img.heat:visible").count() > 0


def test_a_large_report_shows_the_images_of_a_confusion(visit: Visit, large_report: Path) -> None:
    page = visit(large_report)
    page.locator(".frequent a").first.click()
    expect(page.locator(".cell:visible img")).to_have_count(10)


def test_runs_can_be_hidden_and_sorted(visit: Visit) -> None:
    page = visit("runs")
    lines = page.locator(".chart").nth(2).locator(".line:visible")
    expect(lines).to_have_count(3)
    page.locator("#run-table input").first.uncheck()
    expect(lines).to_have_count(2)
    head = page.locator("#run-table th", has_text="loss")
    head.locator("button").click()
    number = head.evaluate("(th) => th.cellIndex")
    values = page.locator("#run-table tbody tr").evaluate_all(
        f"(rows) => rows.map((row) => row.cells[{number}].dataset.value)"
    )
    assert [float(value) for value in values[:2]] == pytest.approx([0.1, 0.05])
    assert values[2] == "", "the run without an evaluation comes last"
