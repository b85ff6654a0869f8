"""Renaming by a table of regular expressions."""

import re

Rules = tuple[tuple[str, str], ...]
"""Pairs of a pattern, which must match the whole name, and a template of the new name.

The first pattern that matches is used.  A named group ``name`` that matches a number n is available
in the template as ``{name}`` (n), ``{name0}`` (n - 1) and ``{name1}`` (n + 1), because some
libraries count blocks from 0 and others from 1."""


def renamed(name: str, rules: Rules) -> str | None:
    r"""Return the new name, or None if no rule matches.

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
