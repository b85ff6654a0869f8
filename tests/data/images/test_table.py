"""Tables of images and classes: accepted formats, and errors that name the row."""

import os
import re
from pathlib import Path

import pytest
from etils import epath

from resnet_jax.data import DataError
from resnet_jax.data.images.folder import open_splits
from resnet_jax.data.images.table import Row, read_table


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Five files, of which d.png is a link to a.png and "a, b.png" has a comma."""
    for name in ("a.png", "b.png", "c.png", "a, b.png"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").symlink_to("a.png")
    return tmp_path


def read(directory: Path, content: str | bytes, kind: str = "csv") -> list[Row]:
    path = directory / f"table.{kind}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(epath.Path(path))


CATS = [Row("a.png", "cat", ""), Row("b.png", "dog", "")]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("csv", "image,label\na.png,cat\nb.png,dog\n"),
        ("csv", "image,label\na.png,cat \nb.png, dog"),
        ("csv", "\ufeffimage,label\r\na.png,cat\r\n\r\nb.png,dog\r\n,,\r\n"),
        ("csv", '"image" , "label"\n "a.png" , "cat"\n\n   \n b.png ,\tdog\t'),
        ("csv", "label,other,image,\ncat,1,a.png,\ndog,2,b.png,,\n"),
        ("CSV", "image,label\ra.png,cat\rb.png,dog\r"),
        ("tsv", "image\tlabel\na.png\tcat\nb.png\t dog \n"),
        ("jsonl", '{"image": "a.png", "label": "cat"}\n\n{"label": " dog", "image": "b.png"}\n'),
        ("jsonl", '\ufeff{"image": " a.png", "label": "cat"}\r\n{"image":"b.png","label":"dog"}\r'),
        # The same image with the same label is used once.
        ("csv", "image,label\na.png,cat\nb.png,dog\n./a.png,cat\nd.png,cat\na.png, cat"),
    ],
)
def test_tables_are_read_without_blanks_and_repetitions(
    directory: Path, kind: str, content: str
) -> None:
    assert read(directory, content, kind) == CATS


def test_a_repetition_is_reported(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(directory, "image,label\na.png,cat\nb.png,dog\n\na.png,cat\n")
    assert "1, such as a.png in row 1 (line 2) and in row 3 (line 5)" in caplog.text
    rows = read(directory, "image,label,split\na.png,cat,train\na.png,cat,VAL \n")
    assert [row.split for row in rows] == ["train", "validation"]


def test_commas_and_line_breaks_can_be_quoted(directory: Path) -> None:
    (directory / "two\nlines.png").touch()
    content = 'image,label\n"a, b.png","cat, tabby"\n"two\nlines.png",dog\n'
    assert read(directory, content) == [
        Row("a, b.png", "cat, tabby", ""),
        Row("two\nlines.png", "dog", ""),
    ]
    with pytest.raises(DataError, match=r"row 3 of .* \(line 5\) names x\.png"):
        read(directory, content + "x.png,dog")


def test_numbers_are_labels(directory: Path) -> None:
    for content, kind, expected in (
        ("image,label\na.png,1\nb.png,02", "csv", ["1", "02"]),
        ("image,label\na.png,1.0\nb.png,2.0", "csv", ["1.0", "2.0"]),
        ('{"image": "a.png", "label": 1}\n{"image": "b.png", "label": "2"}', "jsonl", ["1", "2"]),
    ):
        assert [row.label for row in read(directory, content, kind)] == expected


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (
            "csv",
            "image,label\na.png,cat\nb.png,",
            "row 2 of PATH (line 3) has nothing in the column",
        ),
        (
            "csv",
            "image,label\na.png,cat\nb.png,  ",
            "row 2 of PATH (line 3) has nothing in the col",
        ),
        ("csv", "image,label\na.png,cat\n\nb.png", "row 2 of PATH (line 4) lacks image or label"),
        ("csv", "image,label\n,cat", "row 1 of PATH (line 2) has nothing in the column image"),
        (
            "csv",
            "image,label\na.png,['cat']",
            "has \"['cat']\" in the column label; it must be one",
        ),
        ("csv", "image,label\na.png,[]", "row 1 of PATH (line 2) has '[]' in the column label"),
        (
            "csv",
            "image,label\na.png,cat, tabby",
            "line 2 of PATH has 3 fields, but the header has 2",
        ),
        ("csv", "image,label,label\na.png,cat,dog", "PATH has two columns label"),
        ("tsv", "image,label\na.png,cat", "row 1 of PATH (line 2) lacks image or label"),
        ("csv", b"\xff\xfei\0m\0a\0g\0e\0", "PATH is not text in UTF-8; save it again as UTF-8"),
        (
            "csv",
            "image,label\na.png,cat\nb.png,dog\na.png,dog",
            "row 3 of PATH (line 4) gives a.png the label 'dog', but row 1 (line 2) gives the same",
        ),
        (
            "csv",
            "image,label\na.png,cat\nd.png,dog",
            "row 2 of PATH (line 3) gives d.png the label 'dog', but row 1 (line 2) gives the same",
        ),
        (
            "csv",
            "image,label,split\na.png,cat,train\n./a.png,dog,val",
            "row 2 of PATH (line 3) gives ./a.png the label 'dog', but row 1 (line 2) gives",
        ),
        (
            "csv",
            "image,label\na.png,1\nb.png,2\nc.png,1.0",
            "row 3 of PATH (line 4) has the label '1.0' and row 1 (line 2) has '1', which are the",
        ),
        ("csv", "image,label\na.png,01\nb.png,1", "which are the same number; write each class in"),
        ("jsonl", '{"image": "a.png", "label": ["cat"]}', "row 1 of PATH (line 1) has ['cat'] in"),
        ("jsonl", '{"image": "a.png", "label": {"a": 1}}', "it must be one name or number"),
        (
            "jsonl",
            '{"image": "a.png", "label": ""}',
            "row 1 of PATH (line 1) has nothing in the col",
        ),
        (
            "jsonl",
            '{"image": "a.png", "label": null}',
            "row 1 of PATH (line 1) lacks image or label",
        ),
        ("jsonl", '{"image": "a.png", "label": NaN}', "has nothing in the column label"),
        ("jsonl", '{"image": "a.png", "label": true}', "has True in the column label; it must be"),
        (
            "jsonl",
            '{"image": "a.png", "label": "\\ud83d"}',
            "has \\ud83d in the column label, which",
        ),
        (
            "jsonl",
            '{"image": "a.png", "label": 1}\n\n{"image": "b.png", "label": 2}\n{"image": }\n',
            "row 3 of PATH (line 4) cannot be read as JSON: Expecting value at column 11",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_named(
    directory: Path, kind: str, content: str | bytes, message: str
) -> None:
    path = str(directory / f"table.{kind}")
    with pytest.raises(DataError, match=re.escape(message.replace("PATH", path))):
        read(directory, content, kind)


@pytest.mark.parametrize("name", ["table.json", "table.xlsx", "table.txt", "photos.zip", "table"])
def test_other_files_are_told_what_is_accepted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[]")
    with pytest.raises(
        DataError, match=r"neither a directory .* nor a table \(.csv, .tsv, .jsonl\)"
    ):
        open_splits(tmp_path / name, evaluation_share=0.2, seed=0)


def test_hard_links_are_different_files(directory: Path) -> None:
    os.link(directory / "a.png", directory / "e.png")
    assert len(read(directory, "image,label\na.png,cat\ne.png,dog")) == 2
