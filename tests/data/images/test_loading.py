"""Batches of images in files: each image once, equal for any number of threads and processes."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_jax.config import AugmentConfig, ImageConfig, SamplingConfig
from resnet_jax.data import Batch, DataError
from resnet_jax.data.images import loading
from resnet_jax.data.images.cores import usable_cores
from resnet_jax.data.images.folder import open_splits
from resnet_jax.data.images.loading import ImageSplit

SMALL: dict[str, Any] = {"image_size": 16, "threads": 2}


def splits(folder: Path, **options: Any) -> tuple[ImageSplit, ImageSplit]:
    found = open_splits(folder, evaluation_share=0.2, seed=0)
    config = ImageConfig(**{**SMALL, **options})
    return ImageSplit(found["train"], config), ImageSplit(found["validation"], config)


def take(
    split: ImageSplit, steps: int, *, batch_size: int = 8, start: int = 0, processes: int = 1
) -> list[Batch]:
    """Return global batches, joined from the parts that the processes load."""
    parts = [
        list(
            itertools.islice(
                split.train_batches(
                    batch_size,
                    seed=3,
                    start_step=start,
                    process_index=index,
                    process_count=processes,
                ),
                steps,
            )
        )
        for index in range(processes)
    ]
    return joined(parts)


def joined(parts: list[list[Batch]]) -> list[Batch]:
    return [
        Batch(*map(np.concatenate, zip(*step, strict=True))) for step in zip(*parts, strict=True)
    ]


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for mine, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(mine, other)


class Numbered:
    """A source of images with one color each, which encodes the index of the image."""

    class_names = tuple(map(str, range(41)))
    fingerprint = "numbered"
    labels = tuple(range(41))

    def __len__(self) -> int:
        return 41

    def __getitem__(self, index: int) -> Any:
        from resnet_jax.data.images.source import Record
        from tests.data.images.conftest import jpeg

        return Record(jpeg(np.full((20, 20, 3), 6 * index, np.uint8)), index, str(index))


class Squares:
    """A source of square images, whose only crop of full size is the whole image."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.class_names, self.labels = source.class_names, source.labels
        self.fingerprint = source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        from resnet_jax.data.images.decode import decode
        from tests.data.images.conftest import jpeg

        record = self.source[index]
        return record._replace(image=jpeg(decode(record.image)[:56, :56]))


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8])
def test_every_example_comes_once_an_epoch_on_any_number_of_processes(processes: int) -> None:
    split = ImageSplit(Numbered(), ImageConfig(**SMALL))
    # 41 batches of 24 are 24 epochs of 41 examples.
    batches = take(split, 41, batch_size=24, processes=processes)
    labels = np.concatenate([batch.label for batch in batches]).reshape(24, 41)
    for epoch in labels:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(41))
    assert len({tuple(epoch) for epoch in labels}) == 24, "each epoch in another order"
    colours = np.concatenate([batch.image[:, 0, 0, 0] for batch in batches])
    np.testing.assert_allclose(colours, 6 * labels.ravel(), atol=2)


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_the_global_batch_is_the_same_for_any_number_of_processes(
    folder: Path, processes: int
) -> None:
    train, _ = splits(folder)
    assert_same(take(train, 5, start=7, processes=processes), take(train, 5, start=7))


def test_threads_and_workers_change_nothing_and_a_run_resumes_anywhere(folder: Path) -> None:
    one = take(splits(folder, threads=1)[0], 9)
    assert_same(take(splits(folder, threads=4)[0], 9), one)
    assert_same(take(splits(folder, workers=2)[0], 4, start=5), one[5:])
    assert not all(np.array_equal(a.image, b.image) for a, b in itertools.pairwise(one))


def test_threads_are_as_many_as_the_cores_that_are_left_to_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()


def test_a_late_start_reads_no_image_before_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = splits(folder)
    read = []
    use = loading._use
    monkeypatch.setattr(loading, "_use", lambda *arguments: (read.append(1), use(*arguments))[1])
    [batch] = take(train, 1, start=10_000_000)
    # The loader may have begun with the batches that follow.
    assert len(batch.label) <= len(read) <= 20 * len(batch.label)


def test_repeated_augmentation_crops_each_image_anew() -> None:
    split = ImageSplit(Numbered(), ImageConfig(**SMALL, repeats=3))
    labels = np.concatenate([batch.label for batch in take(split, 41, batch_size=3)])
    epochs = labels.reshape(3, 41)
    for epoch in epochs:
        # Thirteen images are used three times, and one is used twice.
        assert sorted(np.unique(epoch, return_counts=True)[1]) == [2, *[3] * 13]
        np.testing.assert_array_equal(epoch[:39].reshape(13, 3).std(axis=1), 0)


def test_repeated_augmentation_can_have_shortened_epochs() -> None:
    config = SamplingConfig(epoch_multiple=8)
    split = ImageSplit(Numbered(), ImageConfig(**SMALL, repeats=3), sampling_config=config)
    assert split.epoch_size == 40
    labels = np.concatenate([batch.label for batch in take(split, 10)]).reshape(2, 40)
    for number, epoch in enumerate(labels):
        order = np.random.default_rng((3, number)).permutation(41)
        np.testing.assert_array_equal(epoch, np.repeat(order, 3)[:40])


def test_classes_are_sampled_on_any_number_of_processes() -> None:
    source = Numbered()
    # The images of the first class are 35 of 41. Records still have the numbers of the images.
    source.labels = tuple(max(0, index - 34) for index in range(41))
    config = SamplingConfig("balanced", epoch_multiple=8)
    split = ImageSplit(source, ImageConfig(**SMALL), sampling_config=config)
    whole = take(split, 5)
    labels = np.maximum(0, np.concatenate([batch.label for batch in whole]) - 34)
    assert np.bincount(labels).tolist() == [6, 6, 6, 6, 6, 5, 5]
    assert_same(take(split, 5, processes=4), whole)


def test_alternating_flips_show_both_sides_in_two_epochs(folder: Path) -> None:
    whole: dict[str, Any] = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    source = splits(folder)[0].source

    def epochs(augment: AugmentConfig, count: int) -> list[np.ndarray]:
        """Return the images of some epochs, in the order of the split."""
        split = ImageSplit(Squares(source), ImageConfig(**SMALL, **whole, augment=augment))
        return [
            batch.image[np.argsort(split.sampling.epoch(3, number))]
            for number, batch in enumerate(take(split, count, batch_size=len(split)))
        ]

    first, second, third = epochs(AugmentConfig(flip_mode="alternating"), 3)
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(first, second[:, :, ::-1])
    [straight] = epochs(AugmentConfig(), 1)
    assert 0 < (first != straight).any((1, 2, 3)).sum() < len(straight)


# A split of prime size in several batches and in one.
@pytest.mark.parametrize(
    ("processes", "batch_size"),
    [(1, 1), (1, 5), (1, 8), (3, 3), (3, 6), (8, 8), (8, 24), (2, 4), (4, 12)],
)
def test_evaluation_counts_every_example_once(
    folder: Path, processes: int, batch_size: int
) -> None:
    _, evaluation = splits(folder)
    parts = [
        list(evaluation.eval_batches(batch_size, process_index=index, process_count=processes))
        for index in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    steps = joined(parts)
    assert len(steps) == -(-11 // batch_size)
    mask = np.concatenate([batch.mask for batch in steps])
    assert mask.sum() == len(evaluation) == 11
    images = np.concatenate([batch.image for batch in steps])[mask]
    for i in range(11):
        np.testing.assert_array_equal(images[i], evaluation.image(i))
    np.testing.assert_array_equal(
        np.concatenate([batch.label for batch in steps])[mask], evaluation.labels
    )


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "damaged"
    shutil.copytree(folder, copy)
    for split, file in (("train", "dog/1.jpg"), ("val", "eel/2.jpg")):
        path = copy / split / file
        path.write_bytes(path.read_bytes()[:700])
    return copy


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_fails_with_its_name_and_size(damaged: Path, workers: int) -> None:
    train, evaluation = splits(damaged, workers=workers)
    with pytest.raises(Exception, match=r"dog/1\.jpg: no whole image, 700 bytes"):
        take(train, 4)
    with pytest.raises(Exception, match=r"eel/2\.jpg: no whole image, 700 bytes"):
        list(evaluation.eval_batches(4))
    if not workers:
        with pytest.raises(DataError):
            take(train, 4)


def test_a_damaged_file_is_skipped_and_reported_if_so_configured(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, evaluation = splits(damaged, on_unreadable="skip")
    batches = take(train, 23)
    assert all(batch.mask.all() for batch in batches), "another image takes its place"
    assert [Path(name).name for name in train.unreadable] == ["1.jpg"]
    assert "skipped" in caplog.text
    mask = np.concatenate([batch.mask for batch in evaluation.eval_batches(4)])
    assert mask.sum() == 10
    assert [Path(name).name for name in evaluation.unreadable] == ["2.jpg"]


def test_the_mask_is_false_for_a_damaged_evaluation_image(damaged: Path) -> None:
    _, evaluation = splits(damaged, on_unreadable="skip")
    (batch,) = evaluation.eval_batches(len(evaluation))
    names = [evaluation.source[index].name for index in range(len(evaluation))]
    (skipped,) = evaluation.unreadable
    index = names.index(skipped)
    assert np.flatnonzero(~batch.mask).tolist() == [index]
    assert not batch.image[index].any()
    counted = batch.mask
    np.testing.assert_array_equal(batch.label[counted], evaluation.labels[counted])


@pytest.mark.parametrize("path", ["train/dog/1.jpg", "val/eel/2.jpg"])
def test_a_file_that_cannot_be_read_is_treated_as_a_damaged_one(
    folder: Path, tmp_path: Path, path: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = splits(copy)[path.startswith("val")].fingerprint
    (copy / path).unlink()
    (copy / path).symlink_to("nowhere")
    missing = {str(copy / path): "cannot be read (No such file or directory)"}
    train, evaluation = splits(copy)
    assert (evaluation if path.startswith("val") else train).fingerprint != before
    message = r"\.jpg: cannot be read \(No such file or directory\); repair or remove it"
    with pytest.raises(DataError, match=message):
        take(train, 3) + list(evaluation.eval_batches(4))
    train, evaluation = splits(copy, on_unreadable="skip")
    take(train, 3)
    assert sum(batch.mask.sum() for batch in evaluation.eval_batches(4)) == (
        10 if path.startswith("val") else 11
    )
    assert {**train.unreadable, **evaluation.unreadable} == missing


SCRIPT = """
    import sys
    from pathlib import Path
    from resnet_jax.config import ImageConfig
    from resnet_jax.data.images.folder import open_splits
    from resnet_jax.data.images.loading import ImageSplit

    def main():
        splits = open_splits(Path(sys.argv[1]), evaluation_share=0.2, seed=0)
        split = ImageSplit(splits["train"], ImageConfig(image_size=16, threads=1, workers=2))
        for step, batch in enumerate(split.train_batches(8, seed=0, start_step=0)):
            print(step, flush=True)

    if __name__ == "__main__":
        main()
"""


def workers_of(group: int) -> list[int]:
    """Return the processes of a process group, without its leader."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z" and int(status.parent.name) != group:
            found.append(int(status.parent.name))
    return found


@pytest.mark.parametrize(
    "event", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, "worker"], ids=str
)
def test_no_worker_outlives_its_parent(folder: Path, tmp_path: Path, event: Any) -> None:
    script = tmp_path / "load.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        try:
            assert process.stdout
            for _ in range(3):
                assert process.stdout.readline().strip().isdigit()
            workers = workers_of(process.pid)
            assert len(workers) >= 2
            if event == "worker":
                os.kill(workers[-1], signal.SIGKILL)
            else:
                os.kill(process.pid, event)
            # The output must be read meanwhile, or the process waits until there is room for more.
            process.communicate(timeout=240)
            assert process.returncode != 0
            deadline = time.monotonic() + 60
            while workers_of(process.pid) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not workers_of(process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if event == "worker":
        message = (
            "\nresnet_jax.data.dataset.DataError: a loading process was killed, often for want of "
            "memory; use fewer data.images.workers"
        )
        assert message in (tmp_path / "errors").read_text()
