"""Experiments: Python files that define a configuration named ``CONFIG``.

The files of `configs/` come with the library and are known by name: `configs/digits_resnet20.py` is
``digits-resnet20``. Any other file is an experiment too, and is known by its path.
"""

import dataclasses
import inspect
import os
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_jax.config.train import TrainConfig
from resnet_jax.config.validation import ConfigError
from resnet_jax.suggestions import did_you_mean, nearest

DEFAULT_EXPERIMENT = "digits-resnet20"
"""Name of the experiment that is trained if none is named."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A configuration with its name and its description."""

    name: str
    """Name of the file, with hyphens and without its ending."""
    config: TrainConfig
    """The configuration."""
    description: str
    """Docstring of the file."""

    @property
    def summary(self) -> str:
        """The first paragraph of the description, in one line."""
        return " ".join(self.description.partition("\n\n")[0].split())


# Largest number of experiments in a suggestion.
_SUGGESTIONS = 5


def list_experiments() -> list[str]:
    """Return the names of the experiments that come with the library, sorted.

    >>> "digits-resnet20" in list_experiments()
    True
    """
    return sorted(_files())


def load_experiment(source: str | os.PathLike[str]) -> Experiment:
    """Return an experiment by its name or by the path of its file.

    >>> load_experiment("cifar10-resnet20").config.model.name
    'cifar_resnet20'

    Args:
        source: One of `list_experiments`, or the path of a Python file.

    Raises:
        ConfigError: There is no such experiment, or its file fails, defines no ``CONFIG``,
            or gives a field a value of another type.
    """
    if is_file(source):
        path = Path(source)
        if not path.is_file():
            raise ConfigError(f"{path} is not a file; give the path of a file that defines CONFIG")
        experiment = _load(path)
        try:
            experiment.config.check_types()
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        return experiment
    files = _files()
    name = os.fspath(source).replace("_", "-")
    if name not in files:
        near = matching_experiments(name)
        hint = did_you_mean(near, otherwise="`resnet-jax train --list` shows all of them")
        raise ConfigError(f"unknown experiment {os.fspath(source)!r}: {hint}")
    return _load(files[name])


def matching_experiments(name: str) -> list[str]:
    """Return the names that a name may stand for, at most five.

    These are the names that end with the given name. If there are none, they are the names that
    contain it. If there are none either, it is the name with the most similar spelling.

    >>> matching_experiments("resnet56")
    ['cifar10-resnet56']
    >>> matching_experiments("digit-resnet20")
    ['digits-resnet20']
    """
    names = list_experiments()
    ending = [known for known in names if known.endswith(f"-{name}")]
    containing = [known for known in names if name and name in known]
    return (ending or containing or nearest(name, names, count=1))[:_SUGGESTIONS]


def is_file(source: str | os.PathLike[str]) -> bool:
    """Return whether a source means a file rather than the name of an experiment."""
    text = os.fspath(source)
    return text.endswith(".py") or os.sep in text


def _directory() -> Path:
    """Return the directory of the experiments that come with the library.

    A wheel has it within the package. In a clone it is at the top level.
    """
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _files() -> dict[str, Path]:
    return {
        _name(path): path
        for path in sorted(_directory().glob("*.py"))
        if not path.name.startswith("_")
    }


def _name(path: Path) -> str:
    return path.stem.replace("_", "-")


def _load(path: Path) -> Experiment:
    try:
        with _importable(path.parent):
            found = runpy.run_path(str(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise ConfigError(f"{place}: {type(error).__name__}: {error}") from error
    config = found.get("CONFIG")
    if not isinstance(config, TrainConfig):
        problem = "does not define CONFIG" if config is None else "defines another kind of CONFIG"
        raise ConfigError(f"{path} {problem}; an experiment sets CONFIG to a TrainConfig")
    return Experiment(_name(path), config, inspect.cleandoc(found.get("__doc__") or ""))


@contextmanager
def _importable(directory: Path) -> Iterator[None]:
    """Let a file import its neighbors, as `python FILE` does."""
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))
