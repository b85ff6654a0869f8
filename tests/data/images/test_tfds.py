"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow."""

import itertools
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from array_record.python import array_record_module

from resnet_jax.commands.main import main
from resnet_jax.config import ImageConfig, TfdsConfig
from resnet_jax.data import DataError, open_dataset
from resnet_jax.data.images.folder import open_splits
from resnet_jax.data.images.optional import crc32c
from resnet_jax.data.images.prepare import make_builder, prepare
from resnet_jax.data.images.source import UnreadableError
from resnet_jax.data.images.tfds import TfdsSplit
from resnet_jax.data.images.tfrecord import TFRecords, cached_index, index_tfrecord


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the folder as a data set of array_record files."""
    root = tmp_path_factory.mktemp("tfds")
    return prepare(folder, root, name="animals", evaluation_share=0.2, seed=0)


@pytest.fixture(scope="module")
def tfrecord(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records as TFRecord files, as TensorFlow would have written them."""
    root = tmp_path_factory.mktemp("tfrecord") / "animals" / "1.0.0"
    root.mkdir(parents=True)
    info = json.loads((prepared / "dataset_info.json").read_text())
    for split in info["splits"]:
        source = TfdsSplit(prepared, split["name"])
        stem = f"animals-{split['name']}.tfrecord-00000-of-00001"
        (root / stem).write_bytes(b"".join(map(record, source._examples)))
        split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        split["shardLengths"] = [str(len(source))]
    info["fileFormat"] = "tfrecord"
    (root / "dataset_info.json").write_text(json.dumps(info))
    for file in ("features.json", "label.labels.txt"):
        shutil.copy(prepared / file, root / file)
    return root


def record(data: bytes) -> bytes:
    """A record with its two checksums, as TensorFlow writes it."""

    def masked(part: bytes) -> bytes:
        crc = google_crc32c.value(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def test_a_prepared_folder_holds_the_same_bytes_and_classes(folder: Path, prepared: Path) -> None:
    train = TfdsSplit(prepared, "train")
    assert (len(train), len(TfdsSplit(prepared, "validation"))) == (23, 11)
    assert train.class_names == ("cat", "dog", "eel")
    contents = {path.read_bytes(): path.parts for path in (folder / "train").rglob("*.jpg")}
    assert len({train[i].image for i in range(23)} & set(contents)) == 23
    for i in range(23):
        assert train.class_names[train[i].label] in contents[train[i].image]
        assert train.labels[i] == train[i].label
    assert "tensorflow" not in sys.modules


def test_tfrecords_hold_what_array_records_hold(prepared: Path, tfrecord: Path) -> None:
    for split in ("train", "validation", "train[5:20]", "train[:50%]"):
        ours, theirs = TfdsSplit(tfrecord, split), TfdsSplit(prepared, split)
        assert len(ours) == len(theirs) > 0
        for i in range(len(ours)):
            assert ours[i][:2] == theirs[i][:2]


@pytest.fixture(scope="module")
def parquet(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the folder as a data set of parquet files."""
    root = tmp_path_factory.mktemp("parquet")
    builder = make_builder("animals", open_splits(folder, evaluation_share=0.2, seed=0))(
        data_dir=root, file_format="parquet"
    )
    builder.download_and_prepare(download_dir=root / "downloads")
    return root / "animals" / "1.0.0"


def test_parquet_holds_what_array_records_hold(prepared: Path, parquet: Path) -> None:
    for split in ("train", "validation"):
        ours, theirs = TfdsSplit(parquet, split), TfdsSplit(prepared, split)
        records = [[source[i][:2] for i in range(len(source))] for source in (ours, theirs)]
        assert sorted(records[0]) == sorted(records[1])
        part = TfdsSplit(parquet, f"{split}[3:8]")
        assert [part[i][:2] for i in range(len(part))] == records[0][3:8]
        for index in (5, -6):
            with pytest.raises(IndexError):
                part[index]


def test_a_label_that_no_class_has_is_named(tfrecord: Path, tmp_path: Path) -> None:
    copy = tmp_path / "1.0.0"
    shutil.copytree(tfrecord, copy)
    (copy / "label.labels.txt").write_text("cat\ndog\n")
    features = json.loads((copy / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "2"
    (copy / "features.json").write_text(json.dumps(features))
    split = TfdsSplit(copy, "train")
    message = r"example \d+ has label 2, but there are 2 classes"
    with pytest.raises(DataError, match=message):
        assert split.labels
    config = TfdsConfig(str(copy), images=ImageConfig(image_size=16))
    dataset = open_dataset(config)
    for batches in (
        dataset.train.train_batches(23, seed=0, start_step=0),
        dataset.evaluation.eval_batches(11),
    ):
        with pytest.raises(DataError, match=message):
            next(batches)


def test_damaged_shards_are_named_with_their_size(
    prepared: Path, tfrecord: Path, parquet: Path, tmp_path: Path
) -> None:
    for root, kind in ((prepared, "array_record"), (tfrecord, "tfrecord"), (parquet, "parquet")):
        copy = tmp_path / kind / "1.0.0"
        shutil.copytree(root, copy)
        (file,) = copy.glob("*train*")
        content = file.read_bytes()
        file.write_bytes(content[:-70000])
        message = rf"{file}.*, {len(content) - 70000} bytes, cannot be read \(.*\); fetch it again"
        if kind == "tfrecord":
            message = rf"{file} is truncated .* of {len(content) - 70000},"
        if kind == "parquet":
            message = r"animals/1\.0\.0 train cannot be opened \(.*\); fetch its files again"
        with pytest.raises(DataError, match=message) as error:
            TfdsSplit(copy, "train")[3]
        assert "\n" not in str(error.value)
        if kind == "tfrecord":
            file.write_bytes(content[:16] + b"\xff" * (len(content) - 16))
            split = TfdsSplit(tfrecord, "train")
            split._examples = [b"\xff" * 9] * 23
            with pytest.raises(DataError, match=r"train\.tfrecord.* bytes, cannot be read"):
                split[3]


def test_what_damaged_shards_have_lost_can_be_passed_over(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.tfrecord" for name in "abcd"]
    content = b"".join(record(b"%d" % i) for i in range(4))
    for path, damaged in zip(
        paths,
        (content, content[:34] + b"x" + content[35:], content[:-1], content[:17]),
        strict=True,
    ):
        path.write_bytes(damaged)
    parts = [(path, 1, 3) for path in [*paths, tmp_path / "e.tfrecord"]]
    with pytest.raises(DataError, match=r"b\.tfrecord is damaged or not .* after 2 records"):
        TFRecords(parts, tmp_path / "cache")
    records = TFRecords(parts, tmp_path / "cache", strict=False)
    assert len(records) == 15
    found: list[Any] = []
    for index in range(15):
        try:
            found.append(records[index])
        except UnreadableError as error:
            found.append((error.name, error.reason.split(":")[0]))
    b, c, d, e = (str(part[0]) for part in parts[1:])
    no_file = (e, "cannot be read")
    few = (d, "has 0 records after the first 1, but 3 were expected; download it again")
    assert found == [
        *(b"1", b"2", b"3"),
        *(b"1", *((b, "damaged or not a TFRecord file"),) * 2),
        *(b"1", b"2", (c, "truncated or not a TFRecord file")),
        *(few,) * 3,
        *(no_file,) * 3,
    ]


def test_damaged_shards_are_listed_by_the_command_describe(
    prepared: Path,
    tfrecord: Path,
    parquet: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for kind, source in (("tfrecord", tfrecord), ("parquet", parquet), ("array_record", prepared)):
        copy = tmp_path / kind / "1.0.0"
        shutil.copytree(source, copy)
        (file,) = copy.glob("*train*")
        content = file.read_bytes()
        if kind == "tfrecord":
            # The length of the third record is damaged.
            start = 0
            for _ in range(2):
                start += 16 + int.from_bytes(content[start : start + 8], "little")
            file.write_bytes(content[:start] + b"x" + content[start + 1 :])
        else:
            file.write_bytes(content[:-70000])
        with pytest.raises(SystemExit) as ended:
            main(["data", "describe", str(copy)])
        assert ended.value.code == 1
        page = capsys.readouterr().out
        if kind == "tfrecord":
            message = f"damaged: {file}: damaged or not a TFRecord file: after 2 records, at byte "
            assert message in page
            assert page.count("damaged: ") == 1
            assert re.search(r"damaged +│ +1 +│ +0 ", page)
            assert len(re.findall("in train and in validation|twice in train", page)) == 0
        else:
            assert "damaged: animals/1.0.0 train" in page
        assert re.search(r"images +│ +23 +│ +11 ", page)


def test_an_empty_split_is_named(tfrecord: Path, tmp_path: Path) -> None:
    copy = tmp_path / "1.0.0"
    shutil.copytree(tfrecord, copy)
    info = json.loads((copy / "dataset_info.json").read_text())
    for split in info["splits"]:
        if split["name"] == "validation":
            split["shardLengths"] = ["0"]
    (copy / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"animals/1\.0\.0 validation is empty"):
        TfdsSplit(copy, "validation")


@pytest.mark.parametrize("kind", ["directory", "name", "version", "parquet"])
def test_a_run_reads_it(prepared: Path, tfrecord: Path, parquet: Path, kind: str) -> None:
    root = {"directory": prepared, "parquet": parquet}.get(kind, tfrecord.parent.parent)
    name = {"name": "animals", "version": "animals:1.0.0"}.get(kind)
    config = TfdsConfig(str(root), name=name, images=ImageConfig(image_size=16))
    dataset = open_dataset(config)
    assert dataset.evaluation_split == "validation"
    (batch,) = itertools.islice(dataset.train.train_batches(8, seed=0, start_step=0), 1)
    assert batch.image.shape == (8, 16, 16, 3)


def test_the_fingerprint_is_of_the_files(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "1.0.0")
    assert TfdsSplit(tmp_path / "1.0.0", "train").fingerprint == (
        TfdsSplit(prepared, "train").fingerprint
    )
    file = next((tmp_path / "1.0.0").glob("*train*"))
    file.write_bytes(file.read_bytes() + b"x")
    assert TfdsSplit(tmp_path / "1.0.0", "train").fingerprint != (
        TfdsSplit(prepared, "train").fingerprint
    )


def test_what_is_missing_is_named(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a directory"):
        TfdsSplit(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match=r"does not contain a prepared data set .*prepare it with"):
        TfdsSplit(tmp_path, "train")
    with pytest.raises(DataError, match="does not contain a prepared data set animals:2"):
        TfdsSplit(prepared.parent.parent, "train", name="animals:2.0.0")
    with pytest.raises(DataError, match=r"no split 'test' .*it has train, validation"):
        TfdsSplit(prepared, "test")
    with pytest.raises(DataError, match="no feature 'photo'; it has image, label"):
        TfdsSplit(prepared, "train", image_key="photo")
    with pytest.raises(DataError, match=r"'label' of animals/1\.0\.0 is not an image"):
        TfdsSplit(prepared, "train", image_key="label")
    with pytest.raises(DataError, match=r"'image' of .* is not a class label"):
        TfdsSplit(prepared, "train", label_key="image")


def test_an_index_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    contents = [bytes([i]) * (i * 7) for i in range(20)]
    path, cache = tmp_path / "a.tfrecord", tmp_path / "cache"
    path.write_bytes(b"".join(map(record, contents)))
    records = TFRecords([(path, 0, 20)], cache)
    assert list(records) == contents
    (stored,) = cache.iterdir()
    before = stored.stat().st_mtime_ns
    np.testing.assert_array_equal(cached_index(path, cache), index_tfrecord(path))
    assert stored.stat().st_mtime_ns == before
    stored.write_bytes(b"damaged")
    assert list(TFRecords([(path, 3, 5), (path, 0, 2)], cache)) == [*contents[3:8], *contents[:2]]
    path.write_bytes(b"".join(map(record, contents[:10])))
    with pytest.raises(DataError, match="has 10 records after the first 0, but 20 were expected"):
        TFRecords([(path, 0, 20)], cache)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    content = b"".join(record(b"x" * 50) for _ in range(4))
    for size in (len(content) - 1, 70, 3):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=f"after {size // 66} records, at byte .* of {size}"):
            index_tfrecord(path)


def test_one_flipped_bit_is_found_in_whichever_byte_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    content = record(b"first") + record(b"") + record(b"last")
    path.write_bytes(content)
    # The index was made before the damage, so it still has the old records.
    records = TFRecords([(path, 0, 3)], tmp_path / "cache")
    starts = [0, 21, 37, len(content)]
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        damaged = next(i for i in range(3) if at < starts[i + 1])
        what = "length" if at - starts[damaged] < 12 else "data"
        message = f"^damaged record at byte {starts[damaged]}: {what} and checksum disagree$"
        for index in range(3):
            if index == damaged:
                with pytest.raises(DataError, match=message):
                    records[index]
            else:
                assert records[index] == (b"first", b"", b"last")[index]
        if what == "length":
            with pytest.raises(DataError, match=f"is damaged .*at byte {starts[damaged]} of 57"):
                index_tfrecord(path)


def test_a_file_that_was_exchanged_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(record(b"first") + record(b"second"))
    records = TFRecords([(path, 0, 2)], tmp_path / "cache")
    path.write_bytes(record(b"longer than first") + record(b"second"))
    for index in range(2):
        with pytest.raises(DataError, match=r"changed since it was indexed|damaged record at byte"):
            records[index]


def test_a_missing_checksum_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    crc32c.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"need google-crc32c .*pip install 'resnet-linen"):
            TFRecords([], tmp_path)
    finally:
        crc32c.cache_clear()


def test_records_are_read_by_other_processes_too(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "a.tfrecord"
    path.write_bytes(record(b"one") + record(b"two"))
    records = TFRecords([(path, 0, 2)], tmp_path)
    assert records[1] == b"two"
    copy: Any = pickle.loads(pickle.dumps(records))
    assert copy[0] == b"one"


def test_a_data_set_is_not_overwritten(folder: Path, prepared: Path) -> None:
    with pytest.raises(DataError, match=r"exists; choose another name or version"):
        prepare(folder, prepared.parent.parent, name="animals", evaluation_share=0.2, seed=0)


SHARDS = 200


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def sharded(
    request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A data set of many files with one record each. ImageNet has 1,024 files."""
    root = tmp_path_factory.mktemp(request.param) / "animals" / "1.0.0"
    root.mkdir(parents=True)
    content = TfdsSplit(prepared, "train")._examples[0]
    for i in range(SHARDS):
        path = root / f"animals-train.{request.param}-{i:05}-of-{SHARDS:05}"
        if request.param == "tfrecord":
            path.write_bytes(record(content))
        else:
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            writer.write(content)
            writer.close()
    info = json.loads((prepared / "dataset_info.json").read_text())
    (split,) = (split for split in info["splits"] if split["name"] == "train")
    split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split["shardLengths"] = ["1"] * SHARDS
    info |= {"splits": [split], "fileFormat": request.param}
    (root / "dataset_info.json").write_text(json.dumps(info))
    for file in ("features.json", "label.labels.txt"):
        shutil.copy(prepared / file, root / file)
    return root


MANY_FILES = """
    import resource
    import sys
    import threading

    from resnet_jax.data import DataError
    from resnet_jax.data.images.tfds import TfdsSplit


    directory, soft, hard = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        split = TfdsSplit(directory, "train")
    except DataError as error:
        sys.exit(str(error))
    found = []

    def read():
        found.extend(len(split[i].image) for i in range(len(split)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(found), len(set(found)))
"""


@pytest.mark.parametrize("hard", [1024, SHARDS])
def test_more_files_than_a_shell_allows_are_read(sharded: Path, hard: int) -> None:
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MANY_FILES), str(sharded), str(SHARDS), str(hard)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    if "array_record" in sharded.parents[1].name and hard == SHARDS:
        assert process.stderr == (
            "200 files must be open at once, but a process is allowed 200; raise `ulimit -Hn` "
            "above 264, or prepare the data set in fewer files\n"
        )
    else:
        assert process.stdout == f"{4 * SHARDS} 1\n", process.stderr


def test_beam_writes_what_we_write(folder: Path, prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("apache_beam")
    root = prepare(
        folder, tmp_path, name="animals", evaluation_share=0.2, seed=0, beam="--runner=DirectRunner"
    )
    for name in ("train", "validation"):
        ours, theirs = TfdsSplit(root, name), TfdsSplit(prepared, name)
        records = [sorted(split[i][:2] for i in range(len(split))) for split in (ours, theirs)]
        assert records[0] == records[1]
