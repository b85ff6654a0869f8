"""Loading weights into a model, with every tensor accounted for."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models import ResNet, stack_blocks
from resnet_jax.weights.dialects.torch import Rules, from_torch_layout, torch_name, torch_rules
from resnet_jax.weights.prefixes import find_prefix
from resnet_jax.weights.sources import Source, named_tensors
from resnet_jax.weights.structure import structure

Variables = dict[str, Any]

_logger = logging.getLogger(__name__)

# PyTorch stores this counter since 0.4.1, for cumulative averages of statistics.  We do not use it.
_IGNORED_SUFFIX = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What happened to every tensor of a model and of a source, under PyTorch's names.

    Attributes:
        loaded: Tensors that were loaded unchanged.
        adapted: Kernels that were loaded and adapted to another number of image channels.
        initialized: Tensors of the model that the source lacks or has in another shape.  They were
            initialized at random.
        unused: Tensors of the source that the model does not have, such as the head for a model
            without one.
        beside: Tensors of the source that are not under the prefix of the weights, such as another
            network.
        prefix: The prefix of the weights in the source; all names but those in ``beside`` are given
            without it.
    """

    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    initialized: tuple[str, ...]
    unused: tuple[str, ...]
    beside: tuple[str, ...] = ()
    prefix: str = ""

    def __str__(self) -> str:
        kinds = dataclasses.asdict(self)
        del kinds["prefix"]
        counts = [
            f"{len(names)} {kind}" + (f" ({_few(names)})" if kind != "loaded" and names else "")
            for kind, names in kinds.items()
        ]
        return f"weights{_under(self.prefix)}: " + ", ".join(counts)


def load_weights(
    model: ResNet,
    source: Source,
    *,
    prefix: str | None = None,
    strict: bool = True,
    new_head: bool | Literal["if_needed"] = False,
    key: jax.Array | None = None,
) -> Variables:
    """Load published weights as variables of a model.

    The format of the source and the library that its names come from are detected.  No source
    needs PyTorch.

    Args:
        model: The network, from `create_model`.  If its ``in_channels`` differs from that of the
            weights, the first kernel is adapted as in timm: summed over the channels for one
            channel, otherwise repeated and rescaled.  If it has no head (``num_classes=0``), the
            head of the weights is ignored.
        source: One of

            - a mapping from the names of torchvision, timm, ``transformers`` or BiT to arrays, such
              as ``{k: v.numpy() for k, v in torch_model.state_dict().items()}``;
            - variables of one of our models, or of Flax's ImageNet example;
            - the path of a ``.safetensors``, ``.pth`` or ``.npz`` file of such names;
            - a repository of the Hugging Face hub, such as ``hf://timm/resnet50.a1_in1k``, with
              ``@revision`` appended if it is not the newest; `list_pretrained` lists many of them;
            - the path of a downloaded repository, or of an index of several weight files;
            - the path of a run directory or of one checkpoint, from our trainer or from Flax's
              ImageNet example.

            The weights can be anywhere in a checkpoint, such as ``{"state_dict": ..., "epoch": 3}``
            with names that begin with ``model.module.``: the keys that lead to them, joined by
            dots, are their prefix, and the prefix under which the names of the network are found is
            removed.  What is not under it is not loaded.  Wrappers may also be around parts of the
            network.  Networks of Flax's example need a model with ``padding="same"``.
        prefix: Which prefix to load, such as ``"teacher.backbone."``, if the source has several
            networks.  A part such as ``"teacher"`` is enough if only one prefix has it.
        strict: Whether every tensor under the prefix must fit.  If False, tensors that do not fit
            are initialized at random and logged as a warning.
        new_head: Whether to initialize the head at random, for other classes, and ignore that of
            the weights.  ``"if_needed"`` does so only if the source has no head, or one for another
            number of classes.
        key: PRNG key for the variables that are initialized; by default ``jax.random.key(0)``.

    Returns:
        ``{"params": ..., "batch_stats": ...}``, nested dictionaries of float32 arrays for
        ``model.apply(variables, images, train=False)``.  Loaded arrays are NumPy arrays in host
        memory; `jax.device_put` moves them to a device once instead of at every call.

    Raises:
        ValueError: The source cannot be read or has several such networks; or tensors are missing,
            unexpected or of another shape, in which case the message counts them and names a few of
            each kind.  Even without ``strict``, one tensor must fit.
        ImportError: The source needs a package that is not installed: huggingface_hub for
            ``hf://``, orbax-checkpoint for run directories.

    Examples:
        >>> import jax
        >>> from resnet_jax import create_model, load_weights
        >>> model = create_model("cifar_resnet20", stage_sizes=(1, 1, 1))
        >>> images = jax.numpy.zeros((1, 32, 32, 3))
        >>> init = jax.jit(model.init, static_argnames="train")
        >>> variables = init(jax.random.key(1), images, train=False)
        >>> tuned = load_weights(model.clone(num_classes=37), variables, new_head=True)
        >>> tuned["params"]["head"]["kernel"].shape
        (64, 37)

        Weights of timm, from the hub or its cache::

            model = create_model("resnet50")
            variables = load_weights(model, "hf://timm/resnet50.a1_in1k")
    """
    variables, report = _match(model, source, prefix, strict, new_head, key)
    if not strict and (report.initialized or report.unused):
        _logger.warning("%s", report)
    return variables


def load_matching_weights(
    model: ResNet,
    source: Source,
    *,
    prefix: str | None = None,
    new_head: bool | Literal["if_needed"] = False,
    key: jax.Array | None = None,
) -> tuple[Variables, LoadReport]:
    """Load the weights that fit a model, and report what happened to every tensor.

    Equivalent to `load_weights` with ``strict=False``, except that the report is returned instead
    of being logged.

    Args:
        model: The network, see `load_weights`.
        source: The source of the weights, see `load_weights`.
        prefix: Which prefix to load, see `load_weights`.
        new_head: Whether to initialize the head at random, see `load_weights`.
        key: PRNG key for the variables that are initialized; by default ``jax.random.key(0)``.

    Returns:
        The variables, and a `LoadReport`.

    Raises:
        ValueError: The source cannot be read or has several such networks, or no tensor fits.
        ImportError: The source needs a package that is not installed.

    Examples:
        >>> import jax
        >>> from resnet_jax import create_model, load_matching_weights
        >>> shallow = create_model("cifar_resnet20", stage_sizes=(1, 1, 1))
        >>> images = jax.numpy.zeros((1, 32, 32, 3))
        >>> init = jax.jit(shallow.init, static_argnames="train")
        >>> source = init(jax.random.key(1), images, train=False)
        >>> deep = create_model("cifar_resnet20", stage_sizes=(1, 1, 2))
        >>> variables, report = load_matching_weights(deep, source)
        >>> report.initialized[0], len(report.unused)
        ('layer3.1.bn1.running_mean', 0)
    """
    return _match(model, source, prefix, False, new_head, key)


def _match(
    model: ResNet,
    source: Source,
    prefix: str | None,
    strict: bool,
    new_head: bool | Literal["if_needed"],
    key: jax.Array | None,
) -> tuple[Variables, LoadReport]:
    rules = torch_rules(model)
    # A state dict names every block, so match against the network without loops.
    unrolled = model.clone(scan=False)
    channels = model.in_channels or 3
    wanted, tree = _wanted(unrolled, channels, rules)
    content = named_tensors(model, source, rules, wanted)
    head = [torch_name(["params", "head", leaf], rules) for leaf in ("kernel", "bias")]
    sizes = {name: leaf.size for name, leaf in wanted.items() if not (new_head and name in head)}
    prefix = find_prefix(content, sizes, prefix, strict=strict)
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in content.items()
        if name.startswith(prefix)
    }
    beside = [name for name in content if not name.startswith(prefix)]
    stem = _stem_name(tensors, rules)
    if stem and not model.in_channels and tensors[stem].shape[1] != channels:
        channels = tensors[stem].shape[1]
        wanted, tree = _wanted(unrolled, channels, rules)
    if new_head == "if_needed":
        new_head = any(
            name not in tensors or _view(name, tensors[name], leaf).shape != leaf.shape
            for name in head
            if (leaf := wanted.get(name))
        )
    # In the order of the tree, with None for each variable that no tensor fits.
    arrays: dict[str, np.ndarray | None] = {}
    adapted, missing, misshapen, unreadable = [], [], [], []
    for name, leaf in wanted.items():
        arrays[name] = None
        if new_head and name in head:
            continue
        if name not in tensors:
            missing.append(name)
            continue
        tensor = tensors[name]
        if name == stem and _differs_in_channels(tensor.shape, leaf.shape):
            tensor = adapt_image_channels(tensor, channels)
            adapted.append(name)
        # Compare the shapes before any conversion: a damaged file may announce any size.
        array = _view(name, tensor, leaf)
        if unsuitable := _unsuitable(array):
            unreadable.append(f"{name} is {unsuitable}")
        elif array.shape == leaf.shape:
            arrays[name] = np.asarray(array, leaf.dtype)
        else:
            misshapen.append(f"{name} has shape {array.shape} in our layout, not {leaf.shape}")
    unused = [name for name in tensors if name not in arrays and not name.endswith(_IGNORED_SUFFIX)]
    # A head that is not loaded can be anything, such as the projector of self-supervised training.
    without_head = new_head or not model.num_classes
    head_module = head[0].removesuffix("weight")
    unexpected = [n for n in unused if not (without_head and n.startswith(head_module))]

    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "misshapen": misshapen,
        "not dense real numbers": unreadable,
    }
    nothing = all(array is None for array in arrays.values())
    if nothing or (strict and any(problems.values())):
        found = ", ".join(
            f"{len(names)} {kind} ({_few(names)})" for kind, names in problems.items() if names
        )
        fit = "these weights do not fit" if strict else "no tensor of these weights fits"
        raise ValueError(f"{fit} the model{_under(prefix)}: {found}")

    created: dict[str, jax.Array] = {}
    initialized = tuple(name for name, array in arrays.items() if array is None)
    if initialized:
        created = dict(zip(initialized, _init(unrolled, channels, key, arrays), strict=True))
    loaded = tuple(name for name in arrays if name not in initialized and name not in adapted)
    variables = jax.tree.unflatten(tree, (arrays | created).values())
    if model.scan:
        variables = stack_blocks(variables)
    report = LoadReport(loaded, tuple(adapted), initialized, tuple(unused), tuple(beside), prefix)
    return variables, report


def find_network(
    model: ResNet, source: Source, prefix: str | None
) -> tuple[dict[str, Any], str, int]:
    """Read the weights of a network whose number of classes is unknown.

    Args:
        model: The network, with any number of classes.
        source: See `load_weights`.
        prefix: Which prefix to choose, see `load_weights`.

    Returns:
        The tensors, for `load_weights`; their prefix; and the number of classes, which is 0 if the
        weights have no head.

    Raises:
        ValueError: The source cannot be read, or it contains several networks or none under the
            prefix.
        ImportError: The source needs a package that is not installed.
    """
    rules = torch_rules(model)
    wanted, _ = _wanted(model.clone(scan=False), model.in_channels or 3, rules)
    tensors = named_tensors(model, source, rules, wanted)
    head = [torch_name(["params", "head", leaf], rules) for leaf in ("kernel", "bias")]
    # The size of the head is unknown, so it cannot fit.
    sizes = {name: -1 if name in head else leaf.size for name, leaf in wanted.items()}
    prefix = find_prefix(tensors, sizes, prefix, strict=False)
    kernel = tensors.get(prefix + head[0])
    return tensors, prefix, 0 if kernel is None else kernel.shape[0]


def _wanted(
    model: ResNet, channels: int, rules: Rules
) -> tuple[dict[str, jax.ShapeDtypeStruct], Any]:
    """Return the variables of a network under PyTorch's names, and the tree that they are in."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(structure(model, channels))
    return {torch_name([key.key for key in path], rules): leaf for path, leaf in leaves}, tree


def _unsuitable(array: np.ndarray) -> str | None:
    """Return what an array is that does not consist of real numbers, or None if it does."""
    if array.dtype.kind == "U" and not array.ndim:
        return str(array)  # See `read_torch`.
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    real = any(jnp.issubdtype(array.dtype, kind) for kind in kinds)
    return None if real else f"of type {array.dtype}"


def _view(name: str, tensor: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Return a PyTorch tensor in the layout of one of our variables, without a copy."""
    return from_torch_layout(np.asarray(tensor), leaf.ndim, name)


def _differs_in_channels(theirs: Sequence[int], ours: Sequence[int]) -> bool:
    """Return whether kernels [O, I, H, W] and [H, W, I, O] differ in the image channels only."""
    outputs, channels, *size = theirs
    return channels != ours[2] and [*size, outputs] == [*ours[:2], ours[3]]


def _init(
    model: ResNet, channels: int, key: jax.Array | None, arrays: Mapping[str, np.ndarray | None]
) -> list[jax.Array]:
    """Return initial values of the variables that are None in ``arrays``.

    ``arrays`` contains every variable of the network, in the order of the tree.
    """

    def init(key: jax.Array) -> list[jax.Array]:
        variables = model.init(key, jnp.zeros((1, 64, 64, channels)), train=False)
        leaves = zip(arrays.values(), jax.tree.leaves(variables), strict=True)
        return [leaf for array, leaf in leaves if array is None]

    # Compiling once is faster than compiling every layer alone, and XLA drops what is not returned.
    return jax.jit(init)(jax.random.key(0) if key is None else key)


def adapt_image_channels(kernel: np.ndarray, in_channels: int) -> np.ndarray:
    """Adapt the first kernel to another number of image channels, as in timm.

    For one channel the kernel is summed over its channels, so that a gray image gives the same
    result as its copy in three channels.  For several channels the kernel is repeated, and rescaled
    to keep the magnitude of its response.

    Args:
        kernel: Kernel in PyTorch's layout, [O, I, H, W].
        in_channels: Number of channels of the images.

    Returns:
        Kernel [O, in_channels, H, W].
    """
    channels = kernel.shape[1]
    if in_channels == channels:
        return kernel
    if in_channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    repeated = np.tile(kernel, (1, -(-in_channels // channels), 1, 1))[:, :in_channels]
    return repeated * np.float32(channels / in_channels)


def _stem_name(tensors: Mapping[str, np.ndarray], rules: Rules) -> str | None:
    """Return the name of the first kernel, or None if there is none with image channels."""
    for conv in ("conv", "conv1"):
        name = torch_name(["params", "stem", conv, "kernel"], rules)
        if name in tensors and tensors[name].ndim == 4 and tensors[name].shape[1]:
            return name
    return None


def _under(prefix: str) -> str:
    return f" (under the prefix {prefix!r})" if prefix else ""


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
