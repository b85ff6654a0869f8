"""Tables and features are written row by row, and get their names when they are complete."""

import contextlib
import csv
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from resnet_jax.inference.classifier import Prediction
from resnet_jax.inference.neighbors import Neighbor
from resnet_jax.inference.predictions import Predicted
from resnet_jax.inference.rows import _ROW_GROUP
from resnet_jax.inference.tables import Write, open_features, open_table

CAT, DOG = Prediction("cat, the", 0.75, 3), Prediction("dog", 1 / 3, 1)
IMAGES = [
    Predicted(0, 'a "1".jpg', [CAT, DOG], "cat, the", features=np.arange(3, dtype=np.float32)),
    Predicted(1, "b.jpg", error="no whole image"),
    Predicted(2, "é.jpg", [DOG, CAT], "uncertain", features=np.full(3, 0.1, np.float32)),
]
WIDE = [
    {
        "image": 'a "1".jpg',
        "decision": "cat, the",
        "class_1": "cat, the",
        "probability_1": 0.75,
        "class_index_1": 3,
        "class_2": "dog",
        "probability_2": 0.333333,
        "class_index_2": 1,
    },
    {
        "image": "é.jpg",
        "decision": "uncertain",
        "class_1": "dog",
        "probability_1": 0.333333,
        "class_index_1": 1,
        "class_2": "cat, the",
        "probability_2": 0.75,
        "class_index_2": 3,
    },
]
LONG = [
    {
        "image": row["image"],
        "decision": row["decision"],
        "rank": rank,
        **{name: row[f"{name}_{rank}"] for name in ("class", "probability", "class_index")},
    }
    for row in WIDE
    for rank in (1, 2)
]


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def interrupt(file: AbstractContextManager[Write], *images: Predicted) -> None:
    """Write some images, and press Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt), file as write:
        for image in images:
            write(image)
        raise KeyboardInterrupt


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("layout", "expected"), [("wide", WIDE), ("long", LONG)])
def test_a_table_has_the_readable_images(
    tmp_path: Path, ending: str, layout: Any, expected: list[dict[str, Any]]
) -> None:
    path = tmp_path / f"x{ending}"
    with open_table(path, layout=layout) as write:
        for image in IMAGES:
            write(image)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    rows = read(path)
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert list(row) == list(wanted)
        for name, value in wanted.items():
            if isinstance(value, float):
                assert float(row[name]) == pytest.approx(value, rel=1e-5)
            else:
                assert row[name] == (str(value) if ending == ".csv" else value)


def test_neighbors_have_columns_of_their_own(tmp_path: Path) -> None:
    neighbors = [Neighbor("n.jpg", 0.5), Neighbor("m.jpg", 0.25), Neighbor("o.jpg", -1.0)]
    for layout in ("wide", "long"):
        path = tmp_path / f"{layout}.parquet"
        with open_table(path, layout=layout) as write:
            write(Predicted(0, "a.jpg", [CAT, DOG], neighbors=neighbors))
    (wide,) = read(tmp_path / "wide.parquet")
    assert wide["neighbor_3"] == "o.jpg"
    assert "class_3" not in wide
    third = read(tmp_path / "long.parquet")[2]
    assert third == {
        "image": "a.jpg",
        "rank": 3,
        "class": None,
        "probability": None,
        "class_index": None,
        "neighbor": "o.jpg",
        "similarity": -1.0,
    }


def test_features_have_a_row_for_each_readable_image(tmp_path: Path) -> None:
    for ending in (".npy", ".parquet"):
        with open_features(tmp_path / f"x{ending}") as write:
            for image in IMAGES:
                write(image)
    array = np.load(tmp_path / "x.npy")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [IMAGES[0].features, IMAGES[2].features])
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["image"].to_pylist() == ['a "1".jpg', "é.jpg"]
    np.testing.assert_array_equal(table["features"].to_pylist(), array)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_an_image_without_neighbors_has_the_columns_of_the_others(
    tmp_path: Path, ending: str, layout: Any
) -> None:
    images = [
        Predicted(0, "own.jpg", [CAT], most_neighbors=1),
        Predicted(1, "new.jpg", [CAT], neighbors=[Neighbor("own.jpg", 0.5)], most_neighbors=1),
    ]
    path = tmp_path / f"x{ending}"
    with open_table(path, layout=layout) as write:
        for image in images:
            write(image)
    number = "_1" if layout == "wide" else ""
    own, new = read(path)
    assert list(own) == list(new)
    assert own[f"neighbor{number}"] == ""
    similarity = own[f"similarity{number}"]
    assert similarity in (None, "") or (ending == ".parquet" and np.isnan(similarity))
    assert (new[f"neighbor{number}"], float(new[f"similarity{number}"])) == ("own.jpg", 0.5)


def test_a_large_parquet_file_has_groups_of_rows(tmp_path: Path) -> None:
    with open_table(tmp_path / "x.parquet") as write:
        for i in range(2 * _ROW_GROUP + 1):
            write(Predicted(i, f"{i}.jpg", [CAT]))
    file = pq.ParquetFile(tmp_path / "x.parquet")
    assert file.metadata.num_row_groups == 3
    assert file.metadata.num_rows == 2 * _ROW_GROUP + 1


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_an_error_leaves_a_valid_partial_file(tmp_path: Path, ending: str) -> None:
    interrupt(open_table(tmp_path / f"x{ending}"), IMAGES[0])
    assert [file.name for file in tmp_path.iterdir()] == [f"x.partial{ending}"]
    assert [row["image"] for row in read(tmp_path / f"x.partial{ending}")] == ['a "1".jpg']
    # The same command again does not lose these rows unasked.
    with (
        pytest.raises(FileExistsError, match=r"x\.partial.*--overwrite"),
        open_table(tmp_path / f"x{ending}"),
    ):
        pass
    with open_table(tmp_path / f"x{ending}", overwrite=True) as write:
        write(IMAGES[2])
    assert [row["image"] for row in read(tmp_path / f"x{ending}")] == ["é.jpg"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_partial_array_of_features_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    interrupt(open_features(path), *[IMAGES[0]] * 1000)
    assert np.load(tmp_path / "x.partial.npy").shape == (1000, 3)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_without_any_row_there_is_no_file(tmp_path: Path, ending: str) -> None:
    with open_table(tmp_path / f"x{ending}") as write:
        write(IMAGES[1])
    interrupt(open_table(tmp_path / f"x{ending}"), IMAGES[1])
    assert not list(tmp_path.iterdir())


def test_an_impossible_file_is_refused_before_the_first_row(tmp_path: Path) -> None:
    existing = tmp_path / "old.csv"
    existing.write_text("precious")
    for path, error, message in (
        (existing, FileExistsError, r"old\.csv exists; .*--overwrite"),
        (tmp_path / "absent" / "x.csv", OSError, "cannot be written: No such file or directory"),
        (existing / "x.csv", OSError, "cannot be written: Not a directory"),
        (tmp_path / "x.xlsx", ValueError, r"must end with \.csv or \.jsonl or \.parquet"),
    ):
        with pytest.raises(error, match=message), open_table(path):
            pass
    (tmp_path / "folder.csv").mkdir()
    with (
        pytest.raises(OSError, match="it is a directory"),
        open_table(tmp_path / "folder.csv", overwrite=True),
    ):
        pass
    assert existing.read_text() == "precious"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.csv", "old.csv"]
