"""The page in a browser: with a mouse, with a keyboard, on a phone, without sight."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from resnet_jax.serving import create_app
from tests.serving.stub import LIMITS, MODEL, changed, image_file

TOKEN = "a-token-of-many-characters"
Visit = Callable[..., Page]


class Running:
    """A server in a thread."""

    def __init__(self, **options: Any) -> None:
        model = options.pop("model", MODEL)
        app = create_app(model, LIMITS, **options)
        config = uvicorn.Config(app, port=0, log_config=None, ws="none", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Servers with and without explanations, and one that asks for a token."""
    long_names = ("a class with a name that is as long as those of ImageNet", "ox", "sea lion")
    with (
        Running() as plain,
        Running(model=changed(heat=None, class_names=long_names)) as export,
        Running(token=TOKEN) as closed,
    ):
        yield {"plain": plain, "export": export, "closed": closed}


@pytest.fixture
def visit(browser: Browser, addresses: dict[str, str]) -> Iterator[Visit]:
    """A function that opens the page, given options of a browser context. Errors fail the test."""
    contexts: list[BrowserContext] = []
    errors: list[Any] = []

    def visit(name: str = "plain", *, width: int = 1200, **options: Any) -> Page:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, reduced_motion="reduce", **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(error))
        # What the policy of the page forbids is reported here.
        page.on(
            "console",
            lambda message: (
                errors.append(message.text) if "Content Security" in message.text else None
            ),
        )
        page.goto(addresses[name])
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == []


def choose(page: Page, color: str = "green", name: str = "photo.png") -> None:
    page.locator("#file").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": image_file(color)}
    )
    expect(page.locator("#result")).to_have_attribute("aria-busy", "false")


def test_an_image_shows_its_classes_and_what_speaks_for_them(visit: Visit) -> None:
    page = visit()
    choose(page)
    rows = page.locator("#classes button")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("green")
    expect(rows.first).to_contain_text("98.8 %")
    expect(rows.first).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#status")).to_have_text("The most probable class is green, 98.8 %.")
    widths = page.locator("#classes .track span").evaluate_all(
        "(bars) => bars.map((bar) => bar.offsetWidth / bar.parentElement.offsetWidth)"
    )
    assert widths[0] == pytest.approx(0.988, abs=0.02)
    heat, plain = page.locator("#heat"), page.locator("#plain")
    expect(heat).to_be_visible()
    expect(plain).to_be_hidden()
    assert heat.evaluate("(image) => image.naturalWidth") == 40
    # Without the colors, the image itself is shown.
    page.locator("#show-heat").press("Space")
    expect(plain).to_be_visible()
    expect(heat).to_be_hidden()


def test_another_class_can_be_explained_with_the_keyboard(visit: Visit) -> None:
    page = visit()
    choose(page)
    before = page.locator("#heat").get_attribute("src")
    other = page.locator("#classes button").nth(1)
    other.press("Enter")
    expect(other).to_have_attribute("aria-pressed", "true")
    expect(other).to_be_focused()
    expect(page.locator("[aria-pressed=true]")).to_have_count(1)
    name = other.locator("span").first.inner_text()
    expect(page.locator("#status")).to_have_text(f"The colors show what speaks for {name}.")
    assert page.locator("#heat").get_attribute("src") != before


def test_an_image_can_be_dropped_and_pasted(visit: Visit) -> None:
    page = visit()
    data = base64.b64encode(image_file("blue")).decode()
    give = """([kind, data]) => {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
        const target = document.body;
        target.dispatchEvent(kind === "paste"
            ? new ClipboardEvent(kind, {clipboardData: transfer, bubbles: true})
            : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [kind, data])
        expect(page.locator("#classes button").first).to_contain_text("blue")
        expect(page.locator("#name")).to_have_text("dropped.png")
        choose(page, "red")
        expect(page.locator("#classes button").first).to_contain_text("red")


def test_the_reason_of_a_refusal_is_shown(visit: Visit) -> None:
    page = visit()
    choose(page)
    page.locator("#file").set_input_files(
        {"name": "text.png", "mimeType": "image/png", "buffer": b"no image"}
    )
    problem = page.locator("[role=alert]")
    expect(problem).to_contain_text(
        "The server says: the image cannot be read: no whole image, 8 bytes"
    )
    # The classes of the previous image are gone.
    expect(page.locator("#classes li")).to_have_count(0)
    page.context.set_offline(True)
    choose(page)
    expect(problem).to_have_text("The server cannot be reached.")


def test_an_export_shows_its_classes(visit: Visit) -> None:
    page = visit("export", width=400)
    choose(page)
    expect(page.locator("#classes .plain-row").first).to_contain_text("ox")
    expect(page.locator("#plain")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_a_token_is_asked_for(visit: Visit) -> None:
    page = visit("closed")
    choose(page)
    expect(page.locator("[role=alert]")).to_have_text(
        "The server says: the token is missing or wrong"
    )
    page.locator("#token").fill(TOKEN)
    page.locator("#token").press("Enter")
    expect(page.locator("#classes button").first).to_contain_text("green")


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [("plain", "light", 1200), ("plain", "dark", 400), ("closed", "dark", 1200)],
)
def test_people_who_do_not_see_the_page_can_use_it(
    visit: Visit, name: str, scheme: str, width: int
) -> None:
    page = visit(name, color_scheme=scheme, width=width)
    choose(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page).response
    problems = [
        (rule["id"], rule["help"], [node["html"][:200] for node in rule["nodes"][:3]])
        for rule in found["violations"]
    ]
    assert not problems, json.dumps(problems, indent=2)
    assert len(found["passes"]) > 15, "the rules were applied"


def test_every_control_has_a_visible_focus(visit: Visit) -> None:
    page = visit()
    choose(page)
    seen = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
                const focused = document.activeElement;
                const drawn = focused.id === "file" ? focused.parentElement
                    : focused.type === "radio" ? focused.nextElementSibling : focused;
                return [focused.id || focused.tagName, getComputedStyle(drawn).outlineStyle];
            }"""
        )
        assert outline != "none", name
        seen.add(name)
    assert {"file", "show-heat", "BUTTON", "commands"} <= seen


def test_the_page_says_what_to_do_without_its_script(visit: Visit) -> None:
    page = visit(java_script_enabled=False)
    expect(page.locator(".scripted:visible")).to_have_count(0)
    expect(page.locator("#commands")).to_contain_text("/predict")
