"""Renaming by rules: a table says what the tensors of one library are called in another."""

import re

Rules = tuple[tuple[str, str], ...]
"""Patterns and what becomes of a name that one of them matches in full; the first match counts.
Of a number n in the pattern, ``{name}`` is n, ``{name0}`` is n - 1 and ``{name1}`` is n + 1: some
count blocks from 0, some from 1."""


def renamed(name: str, rules: Rules) -> str | None:
    r"""What the rules make of a name, or None where none of them matches.

    >>> renamed("stage2/conv1", ((r"stage(?P<stage>\d)/(?P<rest>.*)", "layers.{stage0}.{rest}"),))
    'layers.1.conv1'
    """
    for pattern, theirs in rules:
        if match := re.fullmatch(pattern, name):
            fields: dict[str, str | int] = {}
            for key, value in match.groupdict(default="").items():
                fields[key] = value
                if value.isdigit():
                    number = int(value)
                    fields |= {key: number, f"{key}0": number - 1, f"{key}1": number + 1}
            return theirs.format(**fields)
    return None
