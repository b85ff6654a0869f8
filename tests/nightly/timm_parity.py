"""Compares every network that timm has with its namesake there, on random weights.

    python -m tests.nightly.timm_parity [PATTERN] [--train]

It needs PyTorch and timm, in an environment of its own; `tests/golden/regenerate.py` says how to
make one.  Each network is compared in a process of its own, which releases its memory.  Its row is
added to `docs/results/timm-parity.jsonl` at once, and a network that has a row there is skipped, so
that the script can be interrupted; remove a row to repeat it.  At the end the table
`docs/results/timm-parity.md` is written from all rows.

The weights are a function of the names of the tensors (`tests.golden.golden.tensor`), and the
images are two of standard normal noise, at 64 and at 96 pixels.  The reference is timm in float64.
The deviation of some logits is their largest difference from the reference, divided by the largest
value of the reference.  The rule: the deviation of our float32 logits is at most 2e-5, or at most
four times that of timm's own float32 logits, where the network is ill-conditioned.  If it is larger
than both, float64 is the judge: our network computes in float64, up to its pooled features, which
are float32, and its logits must then be within 2e-5.

With ``--train``, one step in training mode on four images of 64 pixels is compared as well: logits,
the norm of every gradient, and running statistics.  The bounds are 5e-3, 1e-2 and 1e-3, or again
four times the deviation of timm's own float32.  A network whose row has no such values is then
compared again.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax import ResNet, create_model, list_models, load_weights
from tests.comparison import deviation
from tests.golden import golden

DIRECTORY = Path(__file__).parents[2] / "docs" / "results"
ROWS, TABLE = DIRECTORY / "timm-parity.jsonl", DIRECTORY / "timm-parity.md"
SIZES = (64, 96)
BATCH, TRAIN_BATCH, TRAIN_SIZE = 2, 4, 64
# Above float32's rounding, and far below what a wrong network gives.
BOUNDS = {f"logits at {size}": 2e-5 for size in SIZES} | {
    "training logits": 5e-3,
    "gradient norms": 1e-2,
    "running statistics": 1e-3,
}
ILL_CONDITIONED = 4.0

Values = dict[str, np.ndarray]


def networks(pattern: str) -> list[str]:
    """Return the names that timm has, too: not those of IBN-Net and not those of CIFAR."""
    members = golden.members()
    return [name for name in list_models(pattern) if name in members and "_ibn_" not in name]


def timm_values(name: str, double: bool, train: bool) -> tuple[dict[str, np.ndarray], Values]:
    """Return the weights, and what timm computes with them in float32 or float64."""
    import timm
    import torch

    torch.set_num_threads(1)
    with torch.device("meta"):
        network = timm.create_model(name)
    network = network.to_empty(device="cpu")
    state = {
        key: golden.tensor(key, tuple(tensor.shape))
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    network = timm.create_model(name)  # Buffers such as blur filters are not in the state dict.
    network.load_state_dict({key: torch.from_numpy(x) for key, x in state.items()}, strict=False)
    network = network.double() if double else network.float()

    def images(batch: int, size: int) -> Any:
        array = torch.from_numpy(golden.images(batch, size)).permute(0, 3, 1, 2)
        return array.double() if double else array

    network.eval()
    values: Values = {}
    with torch.no_grad():
        for size in SIZES:
            values[f"logits at {size}"] = network(images(BATCH, size)).numpy()
    if train:
        network.train()
        logits = network(images(TRAIN_BATCH, TRAIN_SIZE))
        (logits * torch.from_numpy(cotangent(logits.shape)).to(logits.dtype)).sum().backward()
        values["training logits"] = logits.detach().numpy()
        values["gradient norms"] = np.array(
            [parameter.grad.norm().item() for _, parameter in sorted(network.named_parameters())]
        )
        statistics = [x.numpy() for key, x in sorted(network.named_buffers()) if "running" in key]
        if statistics:
            values["running statistics"] = np.concatenate(statistics)
    return state, values


def cotangent(shape: Sequence[int]) -> np.ndarray:
    """Return the gradient of the loss with respect to the logits."""
    return np.random.default_rng(3).standard_normal(tuple(shape)).astype(np.float32)


def our_values(name: str, state: dict[str, np.ndarray], train: bool) -> Values:
    """Return what our network computes in float32."""
    import jax

    from resnet_jax.weights.dialects.torch import to_state_dict, torch_rules

    model = create_model(name)
    variables = load_weights(model, state)
    evaluate = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
    values = {
        f"logits at {size}": np.asarray(evaluate(variables, golden.images(BATCH, size)))
        for size in SIZES
    }
    if not train:
        return values
    images = golden.images(TRAIN_BATCH, TRAIN_SIZE)
    weights = cotangent((TRAIN_BATCH, values[f"logits at {SIZES[0]}"].shape[-1]))

    @jax.jit
    def step(variables: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, updated = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return (logits * weights).sum(), (logits, updated)

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradients, (logits, updated) = step(variables)
    rules = torch_rules(model)
    norms = to_state_dict({"params": gradients}, rules)
    values["training logits"] = np.asarray(logits)
    values["gradient norms"] = np.array([np.linalg.norm(norms[key]) for key in sorted(norms)])
    if updated:
        values["running statistics"] = running_statistics(model, variables, updated, images, rules)
    return values


def our_double_logits(name: str, state: dict[str, np.ndarray]) -> Values:
    """Return the logits of our network with float64 parameters and computation."""
    import jax

    with jax.enable_x64(True):
        model = create_model(name, dtype=np.float64)
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), load_weights(model, state))
        evaluate = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
        return {
            f"logits at {size}": np.asarray(evaluate(variables, golden.images(BATCH, size)))
            for size in SIZES
        }


def running_statistics(
    model: ResNet, variables: Any, updated: Any, images: np.ndarray, rules: Any
) -> np.ndarray:
    """Return our running statistics with PyTorch's unbiased variance, in the order of its names."""
    from resnet_jax.weights.dialects.torch import to_state_dict
    from tests.golden.running_variance import unbiased

    updated = unbiased(model, variables | updated, variables, images.shape, steps=1)
    statistics = to_state_dict({"batch_stats": updated["batch_stats"]}, rules)
    return np.concatenate([statistics[key] for key in sorted(statistics)])


def compare(name: str, train: bool) -> dict[str, Any]:
    """Return the row of a network: the deviations of ours and of timm's from the reference."""
    state, expected = timm_values(name, double=True, train=train)
    _, theirs = timm_values(name, double=False, train=train)
    ours = our_values(name, state, train)
    deviations = {
        key: (deviation(ours[key], value), deviation(theirs[key], value))
        for key, value in expected.items()
    }
    larger = [
        key
        for key, (mine, other) in deviations.items()
        if mine > max(BOUNDS[key], ILL_CONDITIONED * other)
    ]
    double: dict[str, float] = {}
    if any(key.startswith("logits") for key in larger):
        values = our_double_logits(name, state)
        double = {key: deviation(value, expected[key]) for key, value in values.items()}
    packages = ("jax", "flax", "torch", "timm")
    return {
        "name": name,
        "deviations": deviations,
        "double": double,
        "passed": all(double.get(key, np.inf) <= BOUNDS[key] for key in larger),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {cpu()}",
        "versions": ", ".join(f"{package} {metadata.version(package)}" for package in packages),
    }


def cpu() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


def stored() -> dict[str, dict[str, Any]]:
    """Return the rows that were computed already, by name; the newest one of several."""
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def write_table() -> None:
    """Write the rows as a page, in the order of `list_models`."""
    rows = stored()
    done = [rows[name] for name in networks("*") if name in rows]
    missing = [name for name in networks("*") if name not in rows]
    rule = (__doc__ or "").split("\n\n")
    keys = list(BOUNDS)
    lines = [
        "# Equality with timm, network by network",
        "",
        "`python -m tests.nightly.timm_parity` writes this page. Each cell has the deviation of",
        "our float32 result from timm in float64, and after the slash that of timm's own float32.",
        "",
        *(" ".join(paragraph.split()) + "\n" for paragraph in rule[3:]),
        f"{len(done)} of {len(done) + len(missing)} networks were compared, and "
        f"{sum(row['passed'] for row in done)} of them pass.",
        "",
        f"| network | {' | '.join(keys)} | passed | date | machine | versions |",
        "|---" * (len(keys) + 5) + "|",
    ]
    for row in done:
        cells = [
            "{:.1e} / {:.1e}".format(*row["deviations"][key]) if key in row["deviations"] else ""
            for key in keys
        ]
        for i, key in enumerate(keys):
            if key in row.get("double", {}):
                cells[i] += f"; float64: {row['double'][key]:.1e}"
        lines.append(
            f"| `{row['name']}` | {' | '.join(cells)} | {'yes' if row['passed'] else '**no**'} | "
            f"{row['date']} | {row['machine']} | {row['versions']} |"
        )
    TABLE.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Parse the command line; exit with 1 if a network fails."""
    parser = argparse.ArgumentParser(description="Compare every network with timm.")
    parser.add_argument("pattern", nargs="?", default="*", help="names to compare; all by default")
    parser.add_argument("--train", action="store_true", help="compare a training step as well")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(compare(arguments.pattern, arguments.train)))
        return
    failed = []
    for name in networks(arguments.pattern):
        row = stored().get(name)
        if row and (not arguments.train or "training logits" in row["deviations"]):
            continue
        command = [sys.executable, "-m", "tests.nightly.timm_parity", name, "--one"]
        command += ["--train"] * arguments.train
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            failed.append(name)
            print(f"{name}: {process.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        line = process.stdout.strip().splitlines()[-1]
        with ROWS.open("a") as file:
            file.write(line + "\n")
        row = json.loads(line)
        print(name, row["passed"], row["deviations"], flush=True)
        if not row["passed"]:
            failed.append(name)
    write_table()
    if failed:
        sys.exit(f"{len(failed)} networks fail: {', '.join(failed)}")


if __name__ == "__main__":
    main()
