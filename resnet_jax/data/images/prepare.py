"""Conversion of a folder of images to a TensorFlow Datasets data set, without TensorFlow."""

import contextlib
import importlib
import io
import re
import shlex
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.folder import ImageFiles, open_splits
from resnet_jax.data.images.paths import as_path

_VERSION = "1.0.0"


def prepare(
    source: epath.PathLike,
    data_dir: epath.PathLike,
    *,
    name: str,
    evaluation_share: float,
    seed: int,
    beam: str | None = None,
) -> epath.Path:
    """Write the images of a folder or table as a few large array_record files.

    The encoded images are copied unchanged.  Every tool that supports TensorFlow Datasets can read
    the result.

    Args:
        source: A folder or a table, see `open_splits`.
        data_dir: Directory of all data sets.
        name: Name of the data set: lowercase letters, digits and underscores, starting with a
            letter.
        evaluation_share: See `open_splits`.
        seed: See `open_splits`.
        beam: Options of Apache Beam, such as ``--runner=DirectRunner --direct_num_workers=8``. Its
            workers then write the records, and must have access to the source. By default this
            process writes them.

    Returns:
        The directory of the data set.

    Raises:
        DataError: The images do not exist, the name is not allowed, or the data set exists.
        ImportError: ``beam`` is given, and Apache Beam is not installed.
    """
    options = None if beam is None else _pipeline_options(beam)
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise DataError(
            f"{name!r} is not a valid data set name; use lowercase letters, digits and "
            "underscores, and start with a letter"
        )
    source, data_dir = as_path(source), as_path(data_dir)
    target = data_dir / name / _VERSION
    if target.exists():
        raise DataError(f"{target} exists; choose another name or version, or remove it")
    splits = open_splits(source, evaluation_share=evaluation_share, seed=seed, every=True)
    builder = make_builder(name, splits, beam=beam is not None)(
        data_dir=data_dir, file_format="array_record"
    )
    with (
        _removed_after_failure(target.parent, data_dir),
        tempfile.TemporaryDirectory() as downloads,
    ):
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(beam_options=options),
        )
    return target


@contextlib.contextmanager
def _removed_after_failure(*directories: epath.Path) -> Iterator[None]:
    """Remove directories after a failure if they are new and empty."""
    made = [directory for directory in directories if not directory.exists()]
    try:
        yield
    except BaseException:
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise


def _pipeline_options(arguments: str) -> Any:
    """Parse options of Apache Beam."""
    try:
        options: Any = importlib.import_module("apache_beam.options.pipeline_options")
    except ImportError:
        raise ImportError(
            "Apache Beam is not installed: pip install apache-beam, or leave out beam"
        ) from None
    return options.PipelineOptions(shlex.split(arguments))


def make_builder(
    name: str, splits: dict[str, ImageFiles], *, beam: bool = False
) -> type[tfds.core.GeneratorBasedBuilder]:
    """Return a builder class with a name, because TensorFlow Datasets uses the name of the class.

    Args:
        name: Name of the data set.
        splits: The images by split.
        beam: Whether Apache Beam writes the records.
    """
    class_names = next(iter(splits.values())).class_names

    def info(self: Any) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="A folder of images.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, None)),
                    "label": tfds.features.ClassLabel(names=list(class_names)),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def example(images: ImageFiles, index: int) -> tuple[bytes, dict[str, Any]]:
        record = images[index]
        # TensorFlow Datasets encodes text as UTF-8 itself, but fails for names that are not UTF-8.
        key = images.files[index].encode("utf-8", "surrogateescape")
        return key, {"image": io.BytesIO(record.image), "label": record.label}

    def examples(images: ImageFiles) -> Any:
        if not beam:
            return (example(images, index) for index in range(len(images)))
        library: Any = importlib.import_module("apache_beam")
        return library.Create(range(len(images))) | library.Map(partial(example, images))

    def split_generators(self: Any, manager: Any) -> dict[str, Any]:
        del self, manager
        return {split: examples(images) for split, images in splits.items()}

    return type(
        "".join(part.capitalize() for part in name.split("_")),
        (tfds.core.GeneratorBasedBuilder,),
        {
            "name": name,
            "VERSION": tfds.core.Version(_VERSION),
            "_info": info,
            "_split_generators": split_generators,
            # The base class requires this method, but calls it only for splits without examples.
            "_generate_examples": split_generators,
        },
        # Otherwise a process could not create a second data set of the same name.
        skip_registration=True,
    )
