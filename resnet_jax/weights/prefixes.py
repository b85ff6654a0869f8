"""Finding the tensors of a network among everything that a checkpoint contains.

Training scripts put a state dict into other dictionaries, and wrappers such as
DistributedDataParallel put a prefix before each of its names.  Here both are the same thing: nested
keys are joined by dots, and what precedes the names of the network is its prefix.  Wrappers around
parts of the network add their names in the middle of others, from which they are removed.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

# A small file can describe a tree whose size is exponential in its own.
_MOST_CONTAINERS = 1_000_000
# The attributes in which wrappers hold the module that they wrap.
_WRAPPERS = frozenset(
    {
        "module",  # DataParallel, DistributedDataParallel, AveragedModel, DeepSpeed
        "_orig_mod",  # torch.compile
        "_fsdp_wrapped_module",  # FullyShardedDataParallel
        "_checkpoint_wrapped_module",  # torch.distributed's activation checkpointing
        "_forward_module",  # Lightning Fabric
    }
)


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


def without_wrappers(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors under names without the attributes of wrappers around parts of a network.

    Wrappers at the beginning of a name stay: they are a prefix.  If two names would become equal,
    all stay unchanged.

    Examples:
        >>> without_wrappers({"module.layer1._fsdp_wrapped_module.0.conv1.weight": 1})
        {'module.layer1.0.conv1.weight': 1}
        >>> without_wrappers({"net.fc.bias": 1, "net.module.fc.bias": 2})
        {'net.fc.bias': 1, 'net.module.fc.bias': 2}
    """
    bare = {_without_wrappers(name): tensor for name, tensor in tensors.items()}
    return bare if len(bare) == len(tensors) else dict(tensors)


def _without_wrappers(name: str) -> str:
    parts = name.split(".")
    start = next((i for i, part in enumerate(parts) if part not in _WRAPPERS), len(parts))
    return ".".join(parts[:start] + [part for part in parts[start:] if part not in _WRAPPERS])


def most_found(tensors: Mapping[str, Any], names: Collection[str]) -> int:
    """Return how many names of a network are found under the prefix that has most of them."""
    found = Counter(
        name[:start] for name in tensors for start in _starts(name) if name[start:] in names
    )
    return max(found.values(), default=0)


def find_prefix(
    tensors: Mapping[str, Any], sizes: Mapping[str, int], prefix: str | None, *, strict: bool
) -> str:
    """Return the prefix of the names of a network in a checkpoint.

    It is the prefix under which most names of the network are found.  If prefixes are equal in
    this, it is the one under which more of the tensors have the right number of elements.

    Args:
        tensors: The tensors of the checkpoint, from `flattened`.
        sizes: Names of the tensors of the network, mapped to their numbers of elements.
        prefix: Prefix that the user has chosen, or some of its parts, with or without the wrappers
            in its middle.  None considers all prefixes.
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
        candidates = [p for p in found if p == prefix]
        for asked in (prefix, _without_wrappers(prefix)) if prefix else ():
            candidates = candidates or [p for p in found if f".{asked}" in f".{p}"]
        if not candidates and (prefix or found):
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
