"""A limit on how deeply the objects of a pickle are nested, without creating them.

Python computes the hash of a tuple of tuples by recursion in C, and has no limit there. A pickle of
a few kilobytes with a deeply nested tuple as a key would overflow the stack and end the process.
"""

import pickletools
from typing import IO, Any

DEEPEST = 1000
"""Deepest nesting that is accepted. State dicts have about ten levels."""

_TUPLES = (b"t", b"\x85", b"\x86", b"\x87")
# Opcodes that change the object below their items, and do not make another one around it.
_FILL = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


class TooDeepError(ValueError):
    """Raised for a pickle whose objects are nested too deeply, or that cannot be followed."""


def check_depth(file: IO[bytes]) -> None:
    """Raise `TooDeepError` if the next pickle of a file nests objects too deeply.

    Every object counts as one level above the objects that it is made of, whatever it is.

    Args:
        file: The file. Its position does not change.
    """
    start = file.tell()
    try:
        _follow(file)
    except TooDeepError:
        raise
    except Exception as error:  # Of a damaged pickle, which the unpickler refuses as well.
        raise TooDeepError(f"its pickle is damaged: {error}") from None
    finally:
        file.seek(start)


def can_be_deep(pickle: bytes) -> bool:
    """Return whether a pickle has enough bytes that can be opcodes of tuples to be too deep."""
    return sum(map(pickle.count, _TUPLES)) > DEEPEST


def _follow(file: IO[bytes]) -> None:
    """Follow the opcodes with the depth of each object in place of the object."""
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name, before = opcode.name, opcode.stack_before
        if name == "MARK":
            marks.append(len(stack))
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
        else:
            if pickletools.markobject in before:
                at = marks.pop() - before.index(pickletools.markobject)
            else:
                at = len(stack) - len(before)
            taken = stack[max(0, at) :]
            del stack[max(0, at) :]
            depth = 1 + max(taken, default=0)
            if name in _FILL:
                depth = max(taken[0], 1 + max(taken[1:], default=0))
            if depth > DEEPEST:
                raise TooDeepError(f"its pickle nests objects more than {DEEPEST:,} levels deep")
            stack += [depth] * len(opcode.stack_after)
