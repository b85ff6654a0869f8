"""What a user may have meant by a word that does not exist."""

import difflib
from collections.abc import Iterable, Sequence


def nearest(word: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return the words that are spelled most like one, the most similar first.

    >>> nearest("trian", ["train", "models"])
    ['train']
    """
    return difflib.get_close_matches(word, list(known), n=count, cutoff=0.5)


def did_you_mean(near: Sequence[str], otherwise: str) -> str:
    """Return the end of a message on an unknown word: similar words, or another hint without any.

    >>> did_you_mean(["train"], "see --help"), did_you_mean([], "see --help")
    ('did you mean train?', 'see --help')
    """
    return f"did you mean {' or '.join(near)}?" if near else otherwise
