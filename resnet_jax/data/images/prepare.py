"""A folder of images as a data set of TensorFlow Datasets, without TensorFlow."""

import io
import tempfile
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.folder import ImageFiles, open_folder, open_manifest
from resnet_jax.data.images.paths import as_path

_VERSION = "1.0.0"


def prepare(
    source: epath.PathLike,
    data_dir: epath.PathLike,
    *,
    name: str,
    evaluation_share: float,
    seed: int,
    beam_options: Any = None,
) -> epath.Path:
    """Writes a folder, or what a table names, as array_record files.

    The images keep their bytes.  Any tool that knows TensorFlow Datasets reads the result, and the
    many small files have become a few large ones.

    Args:
        source: as for `open_folder`, or a table as for `open_manifest`.
        data_dir: the directory of all data sets.
        name: of the data set: small letters, digits and underscores, beginning with a letter.
        evaluation_share: as for `open_folder`.
        seed: as for `open_folder`.
        beam_options: options of Apache Beam, with whose runner the records are then written.

    Returns:
        The directory of the data set.

    Raises:
        DataError: there are no such images, the name is impossible, or the data set exists.
    """
    if not name.isidentifier() or name != name.lower():
        raise DataError(
            f"{name!r} is no name of a data set; use small letters, digits and underscores"
        )
    source, data_dir = as_path(source), as_path(data_dir)
    target = data_dir / name / _VERSION
    if target.exists():
        raise DataError(f"{target} exists; choose another name or version, or remove it")
    is_table = source.suffix in (".csv", ".jsonl")
    train, evaluation, kind = (open_manifest if is_table else open_folder)(
        source, evaluation_share=evaluation_share, seed=seed
    )
    builder = make_builder(name, {"train": train, kind: evaluation})(
        data_dir=data_dir, file_format="array_record"
    )
    with tempfile.TemporaryDirectory() as downloads:
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(beam_options=beam_options),
        )
    return target


def make_builder(name: str, splits: dict[str, ImageFiles]) -> type[tfds.core.GeneratorBasedBuilder]:
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

    def examples(images: ImageFiles) -> Iterator[tuple[str, dict[str, Any]]]:
        for index, file in enumerate(images.files):
            record = images[index]
            yield file, {"image": io.BytesIO(record.image), "label": record.label}

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
