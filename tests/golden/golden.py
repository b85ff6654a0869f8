"""Golden values: the results of PyTorch for these networks, with weights that need no download.

A weight is a pure function of its state-dict name and shape (`tensor`), so the data next to this
file contain only names, shapes and results:

    specs.json          each architecture's tensors, and the packages that defined it
    values/<arch>.npz   activations, loss and gradients of one batch of two images
    trajectories.json   losses of short SGD runs
    members.json        size and tensors of every member of the family
    options.json        logits of networks with an option of timm's set

Everything was computed in float64.  The archives are stored in float32, the trajectories in
float64.  `regenerate.py` recomputes the data, and with `--check` compares them.

    weights = state_dict("resnet50")     # {"conv1.weight": float32 (64, 3, 7, 7), ...}
    spec = specs()["resnet50"]
    batch = images(2, spec["image_size"])
    values("resnet50")["logits"]         # float32 (2, 1000)

PyTorch in float32 differs from these values by up to 1e-6 in evaluation, by 5e-4 in the logits of
training and by 3e-3 in gradient norms (largest difference over largest value).  Bounds of 2e-5,
5e-3 and 1e-2 leave room for another order of summation, and for nothing else.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np

DIRECTORY = Path(__file__).parent

_CLASSIFIERS = ("fc.", "head.fc.")


class Spec(TypedDict):
    """An architecture, as its reference implementation defines it."""

    source: str
    """What defines it: torchvision, timm, or IBN-Net, which `ibn_net` rewrites."""
    versions: dict[str, str]
    """The versions of torch and of this package that computed the values."""
    image_size: int
    """Height and width of the images that the values were computed for."""
    num_classes: int
    layers: NotRequired[list[int]]
    """Number of blocks of each stage, if there are fewer than the architecture has."""
    parameters: int
    """Number of trainable parameters."""
    tensors: list[tuple[str, tuple[int, ...]]]
    """Names and shapes in the order of the state dict, without `num_batches_tracked`."""


class Trajectory(TypedDict):
    """A run of torch.optim.SGD that starts from golden weights, and its results.

    Step i trains on `images(batch, image_size, image_seed + i)` and
    `labels(batch, num_classes, label_seed + i)`, in training mode, with the mean cross entropy.
    Weight decay is added to the gradient before momentum, and applies to every parameter.
    """

    arch: str
    steps: int
    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    image_size: int
    batch: int
    image_seed: int
    label_seed: int
    num_classes: int
    losses: list[float]
    """(steps,): the loss of each step, before its update."""
    eval_seed: int
    eval_logits: list[list[float]]
    """(batch, num_classes): evaluation after the last update, on images of seed `eval_seed`."""


def _generator(seed: int) -> np.random.Generator:
    # PCG64 will not change, while NumPy may give `default_rng` another bit generator.
    return np.random.Generator(np.random.PCG64(seed))


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the weight of a state-dict name, as float32 of the given shape.

    Kernels, (out, in, ...), are normal with variance 1 / fan-in.  Norm scales and running
    variances are uniform in [0.5, 1.5).  Biases and running means are normal with standard
    deviation 0.1.
    """
    rng = _generator(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    if len(shape) >= 2:
        array = math.sqrt(1 / math.prod(shape[1:])) * rng.standard_normal(shape)
    elif name.endswith(("weight", "running_var")):
        array = rng.uniform(0.5, 1.5, shape)
    else:
        array = 0.1 * rng.standard_normal(shape)
    return np.asarray(array, np.float32)


def specs() -> dict[str, Spec]:
    """Return the recorded architectures, by name."""
    recorded = json.loads((DIRECTORY / "specs.json").read_text())
    for spec in recorded.values():
        spec["tensors"] = [(name, tuple(shape)) for name, shape in spec["tensors"]]
    return recorded


def state_dict(arch: str, num_classes: int | None = None) -> dict[str, np.ndarray]:
    """Return an architecture's weights and running statistics under their PyTorch names.

    Args:
        arch: a recorded architecture.
        num_classes: number of classes, by default the recorded one.

    Returns:
        Float32 arrays in PyTorch's layout: convolutions (out, in, height, width), dense (out, in).
    """
    weights = {}
    for name, shape in specs()[arch]["tensors"]:
        if num_classes is not None and name.startswith(_CLASSIFIERS):
            shape = (num_classes, *shape[1:])
        weights[name] = tensor(name, shape)
    return weights


def parameter_names(arch: str) -> list[str]:
    """Return the names of the trainable tensors, in the order of `grad_norms`."""
    return [name for name, _ in specs()[arch]["tensors"] if "running_" not in name]


def buffer_names(arch: str, kind: Literal["running_mean", "running_var"]) -> list[str]:
    """Return the names of one kind of running statistics, in the order of the joined `values`."""
    return [name for name, _ in specs()[arch]["tensors"] if name.endswith(kind)]


def images(batch: int, size: int | Sequence[int], seed: int = 0) -> np.ndarray:
    """Return standard normal images, channels last.

    Args:
        batch: number of images.
        size: height and width in pixels, as one number or as two.
        seed: seed of the generator.

    Returns:
        Float32 (batch, height, width, 3).
    """
    height, width = (size, size) if isinstance(size, int) else size
    return _generator(seed).standard_normal((batch, height, width, 3)).astype(np.float32)


def labels(batch: int, num_classes: int = 1000, seed: int = 1) -> np.ndarray:
    """Return uniform labels in [0, num_classes), int64 (batch,)."""
    return _generator(seed).integers(0, num_classes, batch)


def values(arch: str) -> dict[str, np.ndarray]:
    """Return the results of the reference on `images(2, image_size)` and `labels(2)`.

    Returns:
        Float32 arrays.  From evaluation, with the running statistics of `state_dict`:

        - `logits` (2, num_classes)
        - `stage1` ... `stage4` (2, channels): each stage's output, averaged over height and width

        From one training step, with the statistics of the batch.  They are absent if training is
        random, or too ill-conditioned for a batch of two:

        - `train_logits` (2, num_classes)
        - `train_loss` (): the mean cross entropy
        - `grad_norms` (parameters,): L2 norm of each gradient, in the order of `parameter_names`
        - `running_mean`, `running_var` (channels of all norms,): the statistics after the step,
          joined in the order of `buffer_names`.  They are absent without BatchNorm.  PyTorch
          updates `running_var` with the unbiased variance of the batch, which is n / (n - 1) times
          the variance that it normalizes by.
    """
    with np.load(DIRECTORY / "values" / f"{arch}.npz") as archive:
        return dict(archive)


class Member(TypedDict):
    """The properties by which each of our architectures is compared with timm or IBN-Net."""

    parameters: int
    """Number of trainable parameters."""
    tensors: str
    """`digest` of the names and shapes in its state dict."""


def members() -> dict[str, Member]:
    """Return the members of the family, by their name in timm or IBN-Net."""
    return json.loads((DIRECTORY / "members.json").read_text())


class Option(TypedDict):
    """An architecture of timm with ten classes and one option, applied to `images(2, image_size)`.

    If torchvision has the same option (``replace_stride_with_dilation``), it gives the same logits.
    """

    arch: str
    option: str
    """Name of the argument of `timm.create_model`."""
    value: int | str
    layers: NotRequired[list[int]]
    """Number of blocks of each stage, if there are fewer than the architecture has."""
    image_size: tuple[int, int]
    """Height and width."""
    logits: list[list[float]]
    """(2, 10): logits in evaluation."""


def options() -> list[Option]:
    """Return the networks with options."""
    return json.loads((DIRECTORY / "options.json").read_text())


def digest(tensors: Iterable[tuple[str, Sequence[int]]]) -> str:
    """Return a digest of the names and shapes of a state dict without counters of batches."""
    listed = sorted([name, list(shape)] for name, shape in tensors)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def trajectories() -> list[Trajectory]:
    """Return the recorded training runs."""
    return json.loads((DIRECTORY / "trajectories.json").read_text())
