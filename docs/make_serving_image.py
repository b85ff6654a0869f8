"""Make docs/images/serving.png: the page of a server with an image, in headless Chromium.

    python docs/make_serving_image.py

The server runs the network that docs/make_explanation_image.py trains in a few minutes.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make_explanation_image import PHOTOS, collage, train
from PIL import Image
from playwright.sync_api import expect, sync_playwright

_WIDTH, _HEIGHT = 1200, 900


def main() -> None:
    """Train, serve, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="finished run of docs/make_explanation_image.py")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "images" / "serving.png",
        help="picture to write (default: %(default)s)",
    )
    parser.add_argument("--width", type=int, default=_WIDTH, help="width of the window in pixels")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light", help="colors")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        parser.error("chromium is not installed; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as directory:
        run = arguments.run
        if run is None:
            train(Path(directory))
            run = Path(directory) / "run"
        photo = Path(directory) / "collage.jpg"
        Image.fromarray(collage()).save(photo)
        command = [sys.executable, "-m", "resnet_jax", "serve", run, "--port", "0"]
        with subprocess.Popen(
            [*command, "--name", "photographs", "--max-batch", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server:
            try:
                assert server.stdout is not None
                found = re.search(r"http://\S+", server.stdout.readline())
                assert found, "the server has not started"
                with sync_playwright() as playwright:
                    opened = playwright.chromium.launch(
                        executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
                    )
                    page = opened.new_page(
                        viewport={"width": arguments.width, "height": _HEIGHT},
                        color_scheme=arguments.scheme,
                    )
                    page.goto(found[0])
                    page.locator("#file").set_input_files(photo)
                    expect(page.locator("#classes button")).to_have_count(len(PHOTOS))
                    page.locator("#heat").wait_for()
                    page.screenshot(path=arguments.output, full_page=arguments.width < _WIDTH)
                    opened.close()
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
