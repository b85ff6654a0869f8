"""What a user may have meant by an option that does not exist."""

import difflib
from collections.abc import Iterable


def nearest_options(option: str, known: Iterable[str]) -> list[str]:
    """Return the options that one that does not exist may stand for, at most three.

    >>> known = ["--finetune.freeze", "--optimizer.learning-rate", "--optimizer.weight-decay"]
    >>> nearest_options("--optimizer.lr", known)
    ['--optimizer.learning-rate']
    >>> nearest_options("--weight_decay", known)
    ['--optimizer.weight-decay']
    >>> nearest_options("--optimizer.lerning-rate", known)
    ['--optimizer.learning-rate']
    """
    known = list(known)
    option = option.replace("_", "-")
    leaf = _leaf(option)
    for found in (
        [name for name in known if _leaf(name) == leaf],
        [name for name in known if _initials(_leaf(name)) == leaf],
        difflib.get_close_matches(option, known, n=1, cutoff=0.8),
        [
            name
            for near in difflib.get_close_matches(leaf, map(_leaf, known), n=1, cutoff=0.6)
            for name in known
            if _leaf(name) == near
        ],
        [name for name in known if leaf and leaf in _leaf(name)],
    ):
        if found:
            return found[:3]
    return []


def _leaf(option: str) -> str:
    return option.lstrip("-").rpartition(".")[2]


def _initials(leaf: str) -> str:
    return "".join(word[:1] for word in leaf.split("-"))
