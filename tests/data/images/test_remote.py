"""Data sets at URLs. The bucket of these tests is a local directory."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem

from resnet_jax.config import FolderConfig, ImageConfig, TfdsConfig
from resnet_jax.data import DataError, open_dataset
from resnet_jax.data.images.opening import open_sources
from tests.data.images.test_tfds import prepared as prepared
from tests.data.images.test_tfds import tfrecord as tfrecord


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory that holds the content of gs://bucket."""
    root = tmp_path / "bucket"
    root.mkdir()

    class Bucket(LocalFileSystem):
        protocol = ("gs", "gcs")
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: Any) -> str:
            path = str(path)
            if path.startswith(("gs://bucket", "gcs://bucket")):
                path = str(root) + path.partition("://bucket")[2]
            return path.rstrip("/")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("gs", "gcs"):
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, name, Bucket)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield root
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_a_folder_is_read(folder: Path, bucket: Path) -> None:
    shutil.copytree(folder, bucket / "images")
    ours, theirs = (
        open_sources(FolderConfig(path))[:2] for path in ("gs://bucket/images", str(folder))
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.class_names == other.class_names
        assert mine.fingerprint == other.fingerprint
        for i in range(len(mine)):
            assert mine[i][:2] == other[i][:2]
    assert ours[0][0].name.startswith("gs://bucket/images/train/")


def test_a_table_is_read(folder: Path, bucket: Path) -> None:
    shutil.copytree(folder, bucket / "images")
    rows = [
        {"image": str(path.relative_to(bucket)), "label": path.parts[-2]}
        for path in sorted((bucket / "images" / "train").glob("*/*.jpg"))
    ]
    (bucket / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train, evaluation, _ = open_sources(FolderConfig("gs://bucket/table.jsonl"))
    assert len(train) + len(evaluation) == len(rows)
    assert train[0].image.startswith(b"\xff\xd8")


def test_tfrecords_are_read_through_an_index_in_the_cache(
    tfrecord: Path, bucket: Path, tmp_path: Path
) -> None:
    shutil.copytree(tfrecord, bucket / "animals" / "1.0.0", ignore=shutil.ignore_patterns(".index"))
    images = ImageConfig(image_size=16)
    ours, theirs = (
        open_dataset(TfdsConfig(root, name="animals", images=images))
        for root in ("gs://bucket", str(tfrecord.parent.parent))
    )
    assert ours.fingerprint == theirs.fingerprint
    np.testing.assert_array_equal(ours.train.image(3), theirs.train.image(3))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2
    assert not (bucket / "animals" / "1.0.0" / ".index").exists()


@pytest.mark.usefixtures("bucket")
def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^gs://bucket/nowhere does not exist"):
        open_sources(FolderConfig("gs://bucket/nowhere"))
    with pytest.raises(
        DataError, match=r"^gs://bucket does not contain a prepared data set imagen"
    ):
        open_sources(TfdsConfig("gs://bucket", name="imagenet2012"))

    def refused(*_: object) -> None:
        raise RuntimeError("no credentials\nwere found")

    monkeypatch.setattr(LocalFileSystem, "isdir", refused)
    message = "^gs://bucket cannot be read: RuntimeError: no credentials were found$"
    with pytest.raises(DataError, match=message):
        open_sources(FolderConfig("gs://bucket"))


def test_without_the_library_of_the_store_the_error_names_it() -> None:
    with pytest.raises(ImportError, match="gcsfs"):
        open_sources(FolderConfig("gs://bucket"))
