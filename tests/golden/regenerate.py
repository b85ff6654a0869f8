"""Recompute the golden data with torchvision and timm, or check them.

    python tests/golden/regenerate.py [ARCH ...]            # writes
    python tests/golden/regenerate.py [ARCH ...] --check    # compares, writes nothing

The script needs an environment of its own, because the project does not depend on PyTorch:

    python -m venv .venv
    .venv/bin/pip install torch==2.14.1 torchvision==0.29.1 timm

The data were made with torch 2.14.1, torchvision 0.29.1 and timm 1.0.31, under Python 3.11.
Other versions may work as well; `specs.json` records the versions that were used.

To add an architecture, add a row to `CATALOGUE`.  To add a training run, add an entry with its
hyperparameters to `trajectories.json`.  Then run this script.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import metadata

import golden
import ibn_net
import numpy as np
import timm
import torch
import torchvision
from numpy.typing import ArrayLike
from torch import nn
from torch.nn import functional

CATALOGUE = {
    "resnet18": "torchvision",
    "resnet50": "torchvision",
    "resnext50_32x4d": "torchvision",
    "wide_resnet50_2": "torchvision",
    "resnet50d": "timm",
    "resnet50t": "timm",
    "seresnet50": "timm",
    "ecaresnet50d": "timm",
    "resnetrs50": "timm",
    "resnetv2_50": "timm",
    "resnetv2_50x1_bit": "timm",
    "resnest50d": "timm",
    "skresnet34": "timm",
    "resnetblur50": "timm",
    "resnetaa50": "timm",
    "resnet50_gn": "timm",
    "seresnext50_32x4d": "timm",
    "senet154": "timm",
    "test_resnet": "timm",
    "resnetv2_50d_evos": "timm",
    "resnetv2_50d_frn": "timm",
    "res2next50": "timm",
    "se_resnet50_ibn_a": "IBN-Net",
    "resnet18_ibn_b": "IBN-Net",
    "nf_seresnet26": "timm",
    "resnet50_clip": "timm",
}
"""From each architecture to what defines it: torchvision, timm, or `ibn_net` here."""

LAYERS = {
    "resnext50_32x4d": (2, 1, 1, 1),
    "wide_resnet50_2": (2, 1, 1, 1),
    "resnet50t": (2, 1, 1, 1),
    "seresnet50": (2, 1, 1, 1),
    "ecaresnet50d": (2, 1, 1, 1),
    "resnetrs50": (2, 1, 1, 1),
    "resnetv2_50": (2, 1, 1, 1),
    "resnetv2_50x1_bit": (2, 1, 1, 1),
    "resnest50d": (2, 1, 1, 1),
    "skresnet34": (2, 1, 1, 1),
    "resnetblur50": (2, 1, 1, 1),
    "resnetaa50": (2, 1, 1, 1),
    "resnet50_gn": (2, 1, 1, 1),
    "seresnext50_32x4d": (2, 1, 1, 1),
    "senet154": (2, 1, 1, 1),
    "resnetv2_50d_evos": (1, 1, 1, 1),
    "resnetv2_50d_frn": (1, 1, 1, 1),
    "res2next50": (2, 1, 1, 1),
    "se_resnet50_ibn_a": (1, 1, 1, 1),
    "resnet50_clip": (2, 1, 1, 1),
}
"""Number of blocks of each stage, where fewer than the architecture has show every layer of it.

`tests/nightly/timm_parity.py` compares the whole networks."""

EVAL_ONLY = ("resnest", "skresnet")
"""Families without values of training, which is random or ill-conditioned for a batch of two."""

BATCH = 2
IMAGE_SIZE = 96
NUM_CLASSES = 1000
TOLERANCE = 1e-5
"""More than the rounding of the archives to float32, and far less than a wrong network's error."""


def build(arch: str, num_classes: int = NUM_CLASSES) -> nn.Module:
    """Return a float64 network with golden weights."""
    if CATALOGUE[arch] == "timm":
        model = timm.create_model(arch, num_classes=num_classes)
    elif CATALOGUE[arch] == "IBN-Net":
        model = ibn_net.create(arch, num_classes=num_classes)
    else:
        model = torchvision.models.get_model(arch, num_classes=num_classes)
    if arch in LAYERS:
        shorten(model, LAYERS[arch])
    model.double()
    for name, tensor in named_tensors(model).items():
        tensor.copy_(torch.from_numpy(golden.tensor(name, tuple(tensor.shape))))
    return model


def shorten(model: nn.Module, layers: Sequence[int]) -> None:
    """Remove the last blocks of each stage."""
    for stage, size in zip(stages(model), layers, strict=True):
        blocks = getattr(stage, "blocks", stage)
        del blocks[size:]


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and running statistics, which share the network's memory."""
    state = model.state_dict()
    return {name: state[name] for name in state if not name.endswith("num_batches_tracked")}


def images(batch: int, size: int | Sequence[int], seed: int = 0) -> torch.Tensor:
    """Return golden images for PyTorch, float64 (batch, 3, height, width)."""
    return torch.from_numpy(golden.images(batch, size, seed)).double().permute(0, 3, 1, 2)


def compute_spec(arch: str, model: nn.Module) -> golden.Spec:
    """Return a description of the network and of the packages in use."""
    source = CATALOGUE[arch]
    return {
        "source": source,
        "versions": {
            package: metadata.version(package)
            for package in ("torch", source)
            if package != "IBN-Net"
        },
        "image_size": IMAGE_SIZE,
        "num_classes": NUM_CLASSES,
        **({"layers": list(LAYERS[arch])} if arch in LAYERS else {}),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tensors": [(name, tuple(tensor.shape)) for name, tensor in named_tensors(model).items()],
    }


def compute_values(arch: str, model: nn.Module) -> dict[str, np.ndarray]:
    """Return the arrays of `golden.values`, in float64; change the running statistics."""
    inputs = images(BATCH, IMAGE_SIZE)
    results = compute_eval_values(model, inputs)
    if not arch.startswith(EVAL_ONLY):
        results |= compute_train_values(model, inputs)
    return results


def compute_eval_values(model: nn.Module, inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the logits, and the mean of each stage's output over height and width."""
    means = {}

    def record(name: str, stage: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            means[name] = output.mean((2, 3)).numpy()

        return stage.register_forward_hook(hook)

    handles = [record(f"stage{i}", stage) for i, stage in enumerate(stages(model), start=1)]
    model.eval()
    with torch.no_grad():
        logits = model(inputs).numpy()
    for handle in handles:
        handle.remove()
    return {"logits": logits, **means}


def stages(model: nn.Module) -> list[nn.Module]:
    """Return the four stages, which timm's ResNetV2 keeps in a list and all others by name."""
    if hasattr(model, "stages"):
        return list(model.stages)
    return [model.layer1, model.layer2, model.layer3, model.layer4]


def compute_train_values(model: nn.Module, inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """Return loss, gradient norms and new running statistics of one training step."""
    model.train()
    logits = model(inputs)
    targets = torch.from_numpy(golden.labels(len(inputs), NUM_CLASSES))
    loss = functional.cross_entropy(logits, targets)
    loss.backward()
    results = {
        "train_loss": loss.detach().numpy(),
        "train_logits": logits.detach().numpy(),
        "grad_norms": np.array([parameter.grad.norm().item() for parameter in model.parameters()]),
    }
    for kind in ("running_mean", "running_var"):
        buffers = [buffer for name, buffer in model.named_buffers() if name.endswith(kind)]
        if buffers:
            results[kind] = torch.cat(buffers).numpy()
    return results


def compute_trajectory(recorded: golden.Trajectory) -> golden.Trajectory:
    """Train with the hyperparameters of a recorded run; see `golden.Trajectory`."""
    batch, size, classes = recorded["batch"], recorded["image_size"], recorded["num_classes"]
    model = build(recorded["arch"], classes)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recorded["learning_rate"],
        momentum=recorded["momentum"],
        nesterov=recorded["nesterov"],
        weight_decay=recorded["weight_decay"],
    )
    losses = []
    model.train()
    for step in range(recorded["steps"]):
        inputs = images(batch, size, recorded["image_seed"] + step)
        targets = torch.from_numpy(golden.labels(batch, classes, recorded["label_seed"] + step))
        loss = functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        eval_logits = model(images(batch, size, recorded["eval_seed"])).tolist()
    return {**recorded, "losses": losses, "eval_logits": eval_logits}


def deviation(stored: ArrayLike | None, recomputed: ArrayLike | None) -> float:
    """Return the largest difference over the largest stored value, or infinity if shapes differ."""
    if stored is None or recomputed is None or np.shape(stored) != np.shape(recomputed):
        return np.inf
    return float(np.max(np.abs(np.subtract(recomputed, stored))) / np.max(np.abs(stored)))


def check(archs: list[str]) -> bool:
    """Print the deviation of every entry from the stored one; return whether all are small."""
    passed = [check_arch(arch) for arch in archs]
    passed += [check_trajectory(run) for run in golden.trajectories() if run["arch"] in archs]
    return all([*passed, check_options(), check_members()])


def check_arch(arch: str) -> bool:
    """Check an architecture's spec and values."""
    model = build(arch)
    spec, recorded = compute_spec(arch, model), golden.specs().get(arch)
    # The versions of the packages are shown but not compared, so that other versions can be
    # checked.
    same = recorded is not None and recorded | {"versions": spec["versions"]} == spec
    deviations = {"spec": 0.0 if same else np.inf}

    path = golden.DIRECTORY / "values" / f"{arch}.npz"
    computed, stored = compute_values(arch, model), golden.values(arch) if path.exists() else {}
    for key in dict.fromkeys([*computed, *stored]):
        deviations[key] = deviation(stored.get(key), computed.get(key))

    was = _versions(recorded) if recorded else "nothing"
    return report(f"{arch}, recorded with {was}, checked with {_versions(spec)}", deviations)


def check_trajectory(recorded: golden.Trajectory) -> bool:
    """Check the losses and the final logits of a run."""
    computed = compute_trajectory(recorded)
    return report(
        f"{recorded['arch']}, {recorded['steps']} steps of SGD",
        {
            "losses": deviation(recorded["losses"], computed["losses"]),
            "eval_logits": deviation(recorded["eval_logits"], computed["eval_logits"]),
        },
    )


def compute_option(recorded: golden.Option) -> np.ndarray:
    """Return the logits of an architecture of timm with one option."""
    model = timm.create_model(
        recorded["arch"], num_classes=10, **{recorded["option"]: recorded["value"]}
    )
    if "layers" in recorded:
        shorten(model, recorded["layers"])
    return compute_option_logits(model, recorded["image_size"])


def compute_dilated(recorded: golden.Option) -> np.ndarray:
    """Return the logits of an architecture of torchvision with an output stride of 8 or 16."""
    dilated = [False, recorded["value"] == 8, True]
    model = torchvision.models.get_model(
        recorded["arch"], num_classes=10, replace_stride_with_dilation=dilated
    )
    if "layers" in recorded:
        shorten(model, recorded["layers"])
    return compute_option_logits(model, recorded["image_size"])


def compute_option_logits(model: nn.Module, image_size: Sequence[int]) -> np.ndarray:
    """Return the logits in evaluation, in float64 with golden weights."""
    model.double().eval()
    for name, tensor in named_tensors(model).items():
        tensor.copy_(torch.from_numpy(golden.tensor(name, tuple(tensor.shape))))
    with torch.no_grad():
        return model(images(BATCH, image_size)).numpy()


def check_options() -> bool:
    """Check the networks with options, also with torchvision if it has the same option."""
    deviations = {}
    for option in golden.options():
        size = "x".join(map(str, option["image_size"]))
        title = f"{option['arch']} {option['option']}={option['value']} at {size}"
        deviations[title] = deviation(option["logits"], compute_option(option))
        # torchvision's basic blocks do not support dilation.
        if option["arch"] == "resnet50" and option["option"] == "output_stride":
            deviations[f"{title}, torchvision"] = deviation(
                option["logits"], compute_dilated(option)
            )
    return report("options", deviations)


def compute_member(name: str) -> golden.Member:
    """Return a description of an architecture of timm or IBN-Net without allocating it."""
    with torch.device("meta"):
        model = ibn_net.create(name) if name in ibn_net.NAMES else timm.create_model(name)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tensors": golden.digest((k, v.shape) for k, v in named_tensors(model).items()),
    }


def check_members() -> bool:
    """Check the size and the tensors of every member of the family."""
    wrong = [name for name, stored in golden.members().items() if compute_member(name) != stored]
    return report(f"{len(golden.members())} members", dict.fromkeys(wrong, np.inf))


def report(title: str, deviations: dict[str, float]) -> bool:
    """Print deviations; return whether all are small."""
    # This form of the comparison is False for NaN too.
    good = {key: value <= TOLERANCE for key, value in deviations.items()}
    print(title)
    for key, value in deviations.items():
        print(f"  {key:<12} {value:8.1e}{'' if good[key] else '  FAILED'}")
    return all(good.values())


def _versions(spec: golden.Spec) -> str:
    return ", ".join(f"{package} {version}" for package, version in spec["versions"].items())


def write(archs: list[str]) -> None:
    """Write the values, specs and trajectories of some architectures; keep those of the others."""
    path = golden.DIRECTORY / "specs.json"
    specs = golden.specs() if path.exists() else {}
    for arch in archs:
        print(arch)
        model = build(arch)
        specs[arch] = compute_spec(arch, model)
        arrays = compute_values(arch, model)
        np.savez_compressed(
            golden.DIRECTORY / "values" / f"{arch}.npz",
            **{key: array.astype(np.float32) for key, array in arrays.items()},
        )
    # The order is that of the catalogue, so that the file does not depend on the order of runs.
    path.write_text(to_json({arch: specs[arch] for arch in CATALOGUE if arch in specs}))

    trajectories = [
        compute_trajectory(recorded) if recorded["arch"] in archs else recorded
        for recorded in golden.trajectories()
    ]
    (golden.DIRECTORY / "trajectories.json").write_text(to_json(trajectories))
    options = [option | {"logits": compute_option(option).tolist()} for option in golden.options()]
    rows = ",\n".join(f"  {json.dumps(option)}" for option in options)
    (golden.DIRECTORY / "options.json").write_text(f"[\n{rows}\n]\n")
    members = {name: json.dumps(compute_member(name)) for name in golden.members()}
    rows = ",\n".join(f'  "{name}": {member}' for name, member in members.items())
    (golden.DIRECTORY / "members.json").write_text(f"{{\n{rows}\n}}\n")


def to_json(data: object) -> str:
    """Return data as JSON with one tensor, or one row of numbers, on each line."""
    return _format(data, 0) + "\n"


def _format(data: object, depth: int) -> str:
    # The option `indent` of the json module would put every number on its own line.
    indent, outdent = "\n" + "  " * (depth + 1), "\n" + "  " * depth
    if isinstance(data, dict):
        items = [f"{json.dumps(key)}: {_format(data[key], depth + 1)}" for key in data]
        return "{" + indent + ("," + indent).join(items) + outdent + "}"
    if isinstance(data, list) and data and isinstance(data[0], (dict, list, tuple)):
        items = [_format(item, depth + 1) for item in data]
        return "[" + indent + ("," + indent).join(items) + outdent + "]"
    return json.dumps(data)


def main() -> None:
    """Parse the command line and run; exit with 1 if a check fails."""
    parser = argparse.ArgumentParser(description="Recompute the golden data, or check it.")
    parser.add_argument("archs", nargs="*", metavar="ARCH", help="all of CATALOGUE if none")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    arguments = parser.parse_args()
    if unknown := [arch for arch in arguments.archs if arch not in CATALOGUE]:
        parser.error(f"{', '.join(unknown)}: not in CATALOGUE ({', '.join(CATALOGUE)})")
    archs = arguments.archs or list(CATALOGUE)

    # With several threads, the rounding of sums would depend on the number of cores.
    torch.set_num_threads(1)
    if not arguments.check:
        write(archs)
    elif not check(archs):
        sys.exit(1)


if __name__ == "__main__":
    main()
