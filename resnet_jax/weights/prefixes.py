"""Finding the tensors of a network among everything that a checkpoint contains.

Training scripts put a state dict into other dictionaries, and wrappers such as
DistributedDataParallel put a prefix before each of its names.  Here both are the same thing: nested
keys are joined by dots, and what precedes the names of the network is its prefix.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# A small file can describe a tree whose size is exponential in its own.
_MOST_CONTAINERS = 1_000_000


def flattened(content: Any, as_tensor: Callable[[Any], Any]) -> dict[str, Any]:
    """Return all tensors in nested mappings and lists, under their keys joined by dots.

    Everything else is dropped, and so is what is stored under keys that are not strings, such as
    the moments of an optimizer of PyTorch.

    Args:
        content: Mappings, lists and tuples, nested to any depth.
        as_tensor: Returns the tensor that a value is, or None if the value is not a tensor.

    Raises:
        ValueError: There are more than a million mappings and lists.

    Examples:
        >>> from numpy import ndarray, zeros
        >>> content = {"epoch": 3, "models": [{"fc.bias": zeros(2)}]}
        >>> flattened(content, lambda value: value if isinstance(value, ndarray) else None)
        {'models.0.fc.bias': array([0., 0.])}
    """
    tensors: dict[str, Any] = {}
    visited = 0

    def visit(path: tuple[str, ...], value: Any, outer: tuple[int, ...]) -> None:
        nonlocal visited
        tensor = as_tensor(value)
        if tensor is not None:
            tensors[".".join(path)] = tensor
        elif isinstance(value, Mapping | list | tuple) and id(value) not in outer:
            visited += 1
            if visited > _MOST_CONTAINERS:
                raise ValueError("it contains more than a million mappings and lists")
            items = value.items() if isinstance(value, Mapping) else _numbered(value)
            for key, item in items:
                if isinstance(key, str):
                    visit((*path, key), item, (*outer, id(value)))

    visit((), content, ())
    return tensors


def _numbered(values: list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    return ((str(i), value) for i, value in enumerate(values))


def find_prefix(
    tensors: Mapping[str, Any], sizes: Mapping[str, int], prefix: str | None, *, strict: bool
) -> str:
    """Return the prefix of the names of a network in a checkpoint.

    It is the prefix under which most names of the network are found.  If prefixes are equal in
    this, it is the one under which more of the tensors have the right number of elements.

    Args:
        tensors: The tensors of the checkpoint, from `flattened`.
        sizes: Names of the tensors of the network, mapped to their numbers of elements.
        prefix: Prefix that the user has chosen, or some of its parts.  None considers all prefixes.
        strict: Whether the network needs all of its tensors.  If it does and no prefix has all of
            them, one of the best prefixes is returned, and nothing can be ambiguous.

    Raises:
        ValueError: Several prefixes are equally good, or there is none that the user has chosen.

    Examples:
        >>> from numpy import zeros
        >>> tensors = {"net.fc.bias": zeros(2), "net.fc.weight": zeros((2, 3)), "x": zeros(9)}
        >>> find_prefix(tensors, {"fc.bias": 2, "fc.weight": 6}, None, strict=True)
        'net.'
    """
    found: Counter[str] = Counter()
    fitting: Counter[str] = Counter()
    for name, tensor in tensors.items():
        for start in _starts(name):
            size = sizes.get(name[start:])
            if size is not None:
                found[name[:start]] += 1
                fitting[name[:start]] += math.prod(tensor.shape) == size
    if prefix is None:
        candidates = list(found)
    else:
        prefix = prefix if prefix.endswith(".") or not prefix else f"{prefix}."
        candidates = [p for p in found if p == prefix] or [
            p for p in found if prefix and f".{prefix}" in f".{p}"
        ]
        if not candidates:
            others = f"; it has them under {_listed(_best(found, fitting))}" if found else ""
            raise ValueError(
                f"the source has no tensors of this network under the prefix {prefix!r}{others}"
            )
    if not candidates:
        return ""
    best = _best({p: found[p] for p in candidates}, fitting)
    count = found[best[0]]
    if len(best) > 1 and (count == len(sizes) or not strict):
        raise ValueError(
            f"the source has {count} of the {len(sizes)} tensors of this network under each of the "
            f"prefixes {_listed(best)}; choose one with the argument prefix, or with "
            "--model.weights-prefix on the command line"
        )
    return best[0]


def _starts(name: str) -> Iterator[int]:
    """Return the positions in a dotted name at which the name of a tensor can begin."""
    yield 0
    for i, character in enumerate(name, start=1):
        if character == ".":
            yield i


def _best(found: Mapping[str, int], fitting: Mapping[str, int]) -> list[str]:
    most = max((count, fitting[prefix]) for prefix, count in found.items())
    # Formats differ in the order of the names.
    return sorted(prefix for prefix, count in found.items() if (count, fitting[prefix]) == most)


def _listed(prefixes: list[str]) -> str:
    shown = [repr(prefix) if prefix else "'' (none)" for prefix in prefixes[:8]]
    return ", ".join([*shown, *(["..."] if len(prefixes) > 8 else [])])
