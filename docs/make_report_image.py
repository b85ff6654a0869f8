"""Make docs/images/report.png from the report of a finished run, with headless Chromium.

python train.py digits-resnet20
python docs/make_report_image.py runs/digits-resnet20
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

# The top of the page, from the title to the confusions.
_WIDTH, _HEIGHT = 1200, 2580


def main() -> None:
    """Render the report and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "images" / "report.png",
        help="picture to write (default: %(default)s)",
    )
    arguments = parser.parse_args()
    report = arguments.run / "report.html"
    if not report.exists():
        parser.error(f"{report} does not exist; the run writes it when it ends")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        parser.error("chromium is not installed; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless=new",
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--screenshot={arguments.output.absolute()}",
                f"--window-size={_WIDTH},{_HEIGHT}",
                report.absolute().as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


if __name__ == "__main__":
    main()
