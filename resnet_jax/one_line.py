"""Messages that quote a file, in one line that a terminal shows as it is."""


def one_line(text: object) -> str:
    r"""Return a text with line breaks and control characters as escapes.

    A file could otherwise write to the terminal what it likes.

    >>> print(one_line("a\nb\x1b[2J"))
    a\nb\x1b[2J
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
