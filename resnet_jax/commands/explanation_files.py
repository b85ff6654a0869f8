"""The folder that `resnet-jax explain` writes."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from PIL import Image

from resnet_jax.commands.output_names import output_names
from resnet_jax.data.dataset import printable
from resnet_jax.inference.explanation import Explanation

TABLE = "explanations.csv"
"""File that lists the images with their classes and files."""


class ExplanationFiles:
    """Writes overlays, and if asked for, arrays. A file is complete, or it does not exist.

    As a context, it writes the table of what is done at the end, also after an error. Several
    threads can write at the same time.

    Args:
        directory: Folder for the files. It is created if it does not exist.
        images: Paths and URLs of all images.
        arrays: Whether to write the heat as NumPy arrays, too.

    Raises:
        OSError: The folder cannot be created.
    """

    def __init__(self, directory: Path, images: Sequence[str], *, arrays: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._images, self._arrays = directory, images, arrays
        self._names = output_names(images, [".png", ".npy", ".csv"])
        self._rows: dict[int, list[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        header = ["image", "class", "overlay", *(["array"] if self._arrays else [])]
        text = io.StringIO()
        csv.writer(text).writerows([header, *(self._rows[index] for index in sorted(self._rows))])
        content = printable(text.getvalue()).encode()
        _write(self._directory / TABLE, lambda file: file.write(content))

    def __len__(self) -> int:
        return len(self._rows)

    def write(self, index: int, explanation: Explanation) -> str:
        """Write the files of an image.

        Args:
            index: Position of the image among all images.
            explanation: Its explanation.

        Returns:
            What is wrong with the image, if it can no longer be read, or an empty string.

        Raises:
            OSError: A file cannot be written.
        """
        try:
            overlay = Image.fromarray(explanation.overlay())
        except (OSError, ValueError) as error:
            return str(error)
        names = [f"{self._names[index]}.png"]
        _write(self._directory / names[0], lambda file: overlay.save(file, "PNG"))
        if self._arrays:
            names.append(f"{self._names[index]}.npy")
            _write(self._directory / names[1], lambda file: np.save(file, explanation.heat))
        self._rows[index] = [self._images[index], explanation.class_name, *names]
        return ""


def _write(path: Path, content: Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name, and rename it when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            content(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
