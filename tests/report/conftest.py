"""A browser for the tests of pages, and a page of a large evaluation."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.report.records import large, run_record, write

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window. Without Chromium, tests are skipped, but in CI they fail.

    Playwright's event loop runs from here to the end of the module. Neither a second Playwright nor
    `asyncio.run` could start in this thread while it does.
    """
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        problem = "Chromium is missing: install the package chromium"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(problem)
        pytest.skip(problem)
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def large_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 50,000 images of 1,000 classes."""
    path = tmp_path_factory.mktemp("large") / "report.html"
    write(path, run_record(evaluation=large()))
    return path
