"""Names of files, folders, patterns, lists and URLs become the paths of images."""

import contextlib
import functools
import http.server
import io
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from resnet_jax import Preprocessing
from resnet_jax.data.images import remote
from resnet_jax.data.images.optional import fsspec as optional_fsspec
from resnet_jax.inference import inputs
from resnet_jax.inference.inputs import InputError, check_inputs, expand


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of empty files, which is the working directory."""
    for name in (
        *("photos/b.jpg", "photos/a/2.PNG", "photos/a/1.jpeg", "photos/c.webp", "photos/notes.txt"),
        *(
            "photos/.hidden.jpg",
            "photos/.cache/x.jpg",
            "photos/@eaDir/b.jpg",
            "photos/z/deep/e.gif",
        ),
        *("other/d.bin", "empty/readme.md"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


PHOTOS = ["a/1.jpeg", "a/2.PNG", "b.jpg", "c.webp", "z/deep/e.gif"]


def test_a_folder_gives_its_images_at_any_depth_in_order(tree: Path) -> None:
    expected = [str(tree / "photos" / name) for name in PHOTOS]
    assert list(expand([tree / "photos"])) == expected
    assert list(expand([f"{tree}/photos/"])) == expected


def test_files_come_in_the_order_of_their_names(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    names = ["other/d.bin", "photos/notes.txt", "photos/b.jpg"]
    # A file that is named need not look like an image.
    assert list(expand(names)) == names
    assert list(expand(["photos/a", "other/d.bin"])) == [
        *("photos/a/1.jpeg", "photos/a/2.PNG", "other/d.bin")
    ]


def test_patterns(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert list(expand(["photos/**/*.jp*g"])) == ["photos/a/1.jpeg", "photos/b.jpg"]
    assert list(expand(["photos/[ab]"])) == ["photos/a/1.jpeg", "photos/a/2.PNG"]
    # A file whose name looks like a pattern is a file.
    (tree / "x[1].jpg").touch()
    assert list(expand(["x[1].jpg"])) == ["x[1].jpg"]


def test_a_list_may_name_files_folders_and_what_does_not_exist(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    lines = io.BytesIO(b"photos/b.jpg\r\n\nphotos/a\nabsent.jpg\ncaf\xe9.jpg")
    expected = ["photos/b.jpg", "photos/a/1.jpeg", "photos/a/2.PNG", "absent.jpg"]
    assert list(expand(["-"], lines)) == [*expected, os.fsdecode(b"caf\xe9.jpg")]


def test_names_that_lead_nowhere_are_refused(tree: Path) -> None:
    for name, message in (
        ("absent.jpg", "absent.jpg: there is no such file or folder"),
        ("empty", r"empty has no images \(\.jpg"),
        ("photos/*.bmp", r"no file matches .*\*\.bmp"),
    ):
        with pytest.raises(InputError, match=message) as error:
            check_inputs([tree / "photos", tree / name])
        assert "\n" not in str(error.value)
    check_inputs(["-", tree / "photos"])


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
def test_links_are_followed_and_loops_end(tree: Path) -> None:
    photos = tree / "photos"
    (photos / "a" / "loop").symlink_to(photos)
    (photos / "link").symlink_to(tree / "more")
    (tree / "more").mkdir()
    (tree / "more" / "m.jpg").touch()
    (photos / "broken.jpg").symlink_to("absent.jpg")
    names = [os.path.relpath(path, photos) for path in expand([photos])]
    # A broken link is an image that cannot be read, and so is one that leads to itself.
    assert names == sorted([*PHOTOS, "link/m.jpg", "broken.jpg"])
    (photos / "itself.jpg").symlink_to("itself.jpg")
    names = [os.path.relpath(path, photos) for path in expand([photos])]
    assert names == sorted([*PHOTOS, "link/m.jpg", "broken.jpg", "itself.jpg"])


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_an_image_that_cannot_be_read(tree: Path) -> None:
    locked = tree / "photos" / "a"
    locked.chmod(0)
    try:
        assert str(locked) in expand([tree / "photos"])
    finally:
        locked.chmod(0o700)


def test_the_first_image_of_a_large_folder_comes_at_once(tmp_path: Path) -> None:
    # Hard links are created faster than files. Most of the folders are never read.
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "0.jpg").touch()
    for i in range(1, 5000):
        os.link(tmp_path / "0" / "0.jpg", tmp_path / "0" / f"{i}.jpg")
    for i in range(1, 300):
        (tmp_path / str(i)).mkdir()
    read = []
    scandir = os.scandir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs.os, "scandir", lambda path: (read.append(path), scandir(path))[1])
        first = list(itertools.islice(expand([tmp_path]), 100))
    assert len(first) == 100
    assert len(read) == 2


def test_a_check_reads_a_folder_as_far_as_its_first_image(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(expand([tree / "photos"], in_order=False)) == sorted(expand([tree / "photos"]))
    read = []
    scandir = os.scandir

    @contextlib.contextmanager
    def recording(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield ((read.append(entry.name), entry)[1] for entry in entries)

    monkeypatch.setattr(inputs.os, "scandir", recording)
    check_inputs([tree / "photos"])
    assert len({"b.jpg", "c.webp"}.intersection(read)) == 1


@pytest.fixture
def memory() -> Iterator[None]:
    system = fsspec.filesystem("memory")
    for name in ("a.jpg", "deep/b.png", "deep/.hidden/c.jpg", "notes.txt"):
        system.pipe_file(f"/photos/{name}", name.encode())
    yield
    system.rm("/photos", recursive=True)


@pytest.mark.usefixtures("memory")
def test_urls_name_files_folders_and_patterns() -> None:
    expected = ["memory:///photos/a.jpg", "memory:///photos/deep/b.png"]
    assert list(expand(["memory://photos"])) == expected
    assert list(expand(["memory://photos/*.jpg"])) == expected[:1]
    assert list(expand(["memory://photos/*"])) == [expected[0], "memory:///photos/notes.txt"]
    assert list(expand(["memory://photos/a.jpg"])) == ["memory://photos/a.jpg"]
    assert remote.read_remote(expected[1]) == b"deep/b.png"
    for name in ("memory://photos/*.gif", "memory://photos/deep/.hidden/none/*.jpg"):
        with pytest.raises(InputError, match=r"has no images"):
            check_inputs([name])
    with pytest.raises(OSError, match=r"absent\.jpg"):
        remote.read_remote("memory://photos/absent.jpg")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a web server of a folder with one photo."""
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photo.png")
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A handler that does not log."""

    def log_message(self, *arguments: object) -> None:
        """Do nothing."""


def test_images_are_read_from_a_web_server(server: str) -> None:
    url = f"{server}/photo.png"
    assert list(expand([url])) == [url]
    assert list(expand([f"{url}?size=3"])) == [f"{url}?size=3"]
    preprocessing = Preprocessing(8, 1.0, "pil_bilinear", (0.5,), (0.2,), 3)
    assert (preprocessing.on_host(url) == [255, 0, 0]).all()
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*absent\.png"):
        preprocessing.on_host(f"{server}/absent.png")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(remote.fsspec.__wrapped__.__globals__, "importlib", Missing)
        optional_fsspec.cache_clear()
        with pytest.raises(ImportError, match=r"URLs need fsspec .*pip install .*\[predict\]"):
            remote.read_remote("s3://bucket/cat.jpg")
    optional_fsspec.cache_clear()

    def url_to_fs(_: str) -> None:
        raise ImportError('HTTPFileSystem requires "requests" and "aiohttp" to be installed')

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    with pytest.raises(ImportError, match=r"^https:// needs .*pip install .*\[predict\]"):
        remote.read_remote("https://host/cat.jpg")
    with pytest.raises(ImportError, match=r"^s3:// needs a package that is not installed"):
        check_inputs(["s3://bucket/photos"])


class Missing:
    """A replacement for the module `importlib` that finds nothing."""

    @staticmethod
    def import_module(name: str) -> None:
        """Raise the error of a module that is not installed."""
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
