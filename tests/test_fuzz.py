"""No file makes a loader do more than raise an error of one line.

`tests/nightly/fuzz_loaders.py` does the same for minutes, and watches what the loaders do besides.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzzing import LOADERS, BrokenError, Loader, check


@pytest.mark.parametrize("name", LOADERS)
def test_every_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    loader, refused = LOADERS[name], []

    @settings(
        max_examples=150,
        deadline=None,
        database=None,
        # The same files in every run, so that the suite does not fail now and then.
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(loader.files)
    def run(content: bytes) -> None:
        refused.append(check(loader, content, tmp_path))

    run()
    assert any(refused), "no file was hostile"


def test_what_a_loader_must_not_do_is_noticed(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        {"a": 1}[path.read_text()]

    with pytest.raises(BrokenError, match="KeyError"):
        check(Loader(read, None), b"b", tmp_path)  # pyrefly: ignore

    def two_lines(path: Path) -> None:
        raise ValueError(path.read_text())

    with pytest.raises(BrokenError, match="not one line"):
        check(Loader(two_lines, None), b"a\nb", tmp_path)  # pyrefly: ignore
