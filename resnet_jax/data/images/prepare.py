"""A folder of images as a data set of TensorFlow Datasets, without TensorFlow."""

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
    """Writes a folder, or what a table names, as array_record files.

    The images keep their bytes.  Any tool that knows TensorFlow Datasets reads the result, and the
    many small files have become a few large ones.

    Args:
        source: a folder or a table, as for `open_splits`.
        data_dir: the directory of all data sets.
        name: of the data set: small letters, digits and underscores, beginning with a letter.
        evaluation_share: as for `open_splits`.
        seed: as for `open_splits`.
        beam: options of Apache Beam, such as ``--runner=DirectRunner --direct_num_workers=8``; its
            workers, which must see the source, then write the records.

    Returns:
        The directory of the data set.

    Raises:
        DataError: there are no such images, the name is impossible, or the data set exists.
        ImportError: Apache Beam is asked for and not installed.
    """
    options = None if beam is None else _pipeline_options(beam)
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise DataError(
            f"{name!r} is no name of a data set; use small letters, digits and underscores"
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
    """Directories that were not there before, and are empty, are not left behind."""
    made = [directory for directory in directories if not directory.exists()]
    try:
        yield
    except BaseException:
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise


def _pipeline_options(arguments: str) -> Any:
    try:
        options: Any = importlib.import_module("apache_beam.options.pipeline_options")
    except ImportError:
        raise ImportError(
            "Apache Beam is not installed: pip install apache-beam, or leave it out"
        ) from None
    return options.PipelineOptions(shlex.split(arguments))


def make_builder(
    name: str, splits: dict[str, ImageFiles], *, beam: bool = False
) -> type[tfds.core.GeneratorBasedBuilder]:
    """A builder class of that name: TensorFlow Datasets takes the name from the class."""
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

    def example(images: ImageFiles, index: int) -> tuple[str, dict[str, Any]]:
        record = images[index]
        return images.files[index], {"image": io.BytesIO(record.image), "label": record.label}

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
            # Abstract there, and not called where the splits come with their examples.
            "_generate_examples": split_generators,
        },
        # Else a second data set of the name would be refused in one process.
        skip_registration=True,
    )
