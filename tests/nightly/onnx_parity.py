"""Compares every network with its ONNX model in onnxruntime, on random weights.

    python -m tests.nightly.onnx_parity [PATTERN]

Each network is compared in a process of its own, which releases its memory.  Its row is added to
`docs/results/onnx-parity.jsonl` at once, and a network that has a row there is skipped, so that the
script can be interrupted; remove a row to repeat it.  At the end the table
`docs/results/onnx-parity.md` is written from all rows.

The weights are a function of the names of the tensors (`tests.golden.golden.tensor`), and the
images are two of standard normal noise at 64 pixels.  The model is written with a symbolic batch
size, checked by `onnx.checker` with full shape inference, and run by onnxruntime.  BatchNorm is not
folded.  The deviation of the logits is their largest difference from ours, divided by our largest
value.  The rule: it is at most 1e-5.  If it is larger, our network in float64 is the judge: the
deviation of onnxruntime from it is then at most four times that of our float32.
"""

import argparse
import collections
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from resnet_jax import create_model, list_models
from tests.comparison import deviation
from tests.fast_compilation import FLAGS
from tests.golden import golden
from tests.nightly.timm_parity import cpu

DIRECTORY = Path(__file__).parents[2] / "docs" / "results"
ROWS, TABLE = DIRECTORY / "onnx-parity.jsonl", DIRECTORY / "onnx-parity.md"
BATCH, SIZE = 2, 64
BOUND, ILL_CONDITIONED = 1e-5, 4.0


def compare(name: str) -> dict[str, Any]:
    """Return the row of a network."""
    import jax
    import onnx
    import onnxruntime

    from resnet_jax.export.onnx import write_onnx
    from tests.export.networks import golden_variables

    model = create_model(name)
    variables = golden_variables(model)
    images = golden.images(BATCH, SIZE)

    def function(variables: Any, images: Any) -> Any:
        return model.apply(variables, images, train=False)

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "model.onnx"
        shape = jax.export.symbolic_shape(f"b, {SIZE}, {SIZE}, 3")
        before = time.perf_counter()
        write_onnx(function, (variables, jax.ShapeDtypeStruct(shape, np.float32)), file)
        seconds = time.perf_counter() - before
        size = sum(path.stat().st_size for path in Path(directory).iterdir())
        nodes = onnx.load(file, load_external_data=False).graph.node
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        [theirs] = session.run(None, {"images": images})
        del session
    ours = logits(name, variables, images, np.float32)
    row = {
        "name": name,
        "deviation": deviation(theirs, ours),
        "nodes": len(nodes),
        "transposes": sum(node.op_type == "Transpose" for node in nodes),
        "megabytes": size / 1e6,
        "seconds": seconds,
    }
    passed = row["deviation"] <= BOUND
    if not passed:
        double = logits(name, variables, images, np.float64)
        row["from float64"] = deviation(theirs, double), deviation(ours, double)
        passed = row["from float64"][0] <= ILL_CONDITIONED * row["from float64"][1]
    packages = ("jax", "onnx", "onnxruntime")
    return row | {
        "operators": sorted(collections.Counter(node.op_type for node in nodes)),
        "passed": bool(passed),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": cpu(),
        "versions": ", ".join(f"{package} {metadata.version(package)}" for package in packages),
    }


def logits(name: str, variables: Any, images: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the logits of our network with parameters and computation of a type."""
    import jax

    from resnet_jax import stack_blocks

    with jax.enable_x64(dtype == np.float64):
        # Loops over blocks compile sooner.
        model = create_model(name, dtype=dtype, scan=True)
        stacked = stack_blocks(jax.tree.map(lambda x: np.asarray(x, dtype), variables))
        evaluate = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
        return np.asarray(evaluate(stacked, images))


def stored() -> dict[str, dict[str, Any]]:
    """Return the rows that were computed already, by name; the newest one of several."""
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def write_table() -> None:
    """Write the rows as a page, in the order of `list_models`."""
    rows = stored()
    done = [rows[name] for name in list_models() if name in rows]
    rule = (__doc__ or "").split("\n\n")
    columns = ["network", "deviation", "nodes", "transposes", "MB", "s", "passed"]
    columns += ["date", "machine", "versions"]
    operators = sorted({operator for row in done for operator in row["operators"]})
    lines = [
        "# Equality of ONNX models, network by network",
        "",
        "`python -m tests.nightly.onnx_parity` writes this page.",
        "",
        *(" ".join(paragraph.split()) + "\n" for paragraph in rule[3:]),
        f"{len(done)} of {len(list_models())} networks were compared, and "
        f"{sum(row['passed'] for row in done)} of them pass. The seconds are the time to "
        "write and check the file; other programs used the machine meanwhile.",
        "",
        f"The models use {len(operators)} operators: {', '.join(operators)}.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for row in done:
        judged = row.get("from float64")
        text = f"{row['deviation']:.1e}"
        if judged:
            text += f" (from float64: {judged[0]:.1e}, and ours {judged[1]:.1e})"
        lines.append(
            f"| `{row['name']}` | {text} | {row['nodes']} | {row['transposes']} | "
            f"{row['megabytes']:.1f} | {row['seconds']:.1f} | "
            f"{'yes' if row['passed'] else '**no**'} | {row['date']} | {row['machine']} | "
            f"{row['versions']} |"
        )
    TABLE.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Parse the command line; exit with 1 if a network fails."""
    parser = argparse.ArgumentParser(description="Compare every network with its ONNX model.")
    parser.add_argument("pattern", nargs="?", default="*", help="names to compare; all by default")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(compare(arguments.pattern)))
        return
    failed = []
    # Shallow networks come first, which have all kinds of parts.
    names = list_models(arguments.pattern)
    for name in sorted(names, key=lambda name: sum(create_model(name).stage_sizes)):
        if name in stored():
            continue
        command = [sys.executable, "-m", "tests.nightly.onnx_parity", name, "--one"]
        process = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={"XLA_FLAGS": FLAGS, **os.environ},
        )
        if process.returncode:
            failed.append(name)
            reason = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
            print(f"{name}: {reason[-1]}", flush=True)
            continue
        line = process.stdout.strip().splitlines()[-1]
        with ROWS.open("a") as file:
            file.write(line + "\n")
        row = json.loads(line)
        print(f"{name}: {row['deviation']:.1e}, {row['seconds']:.1f} s", flush=True)
        if not row["passed"]:
            failed.append(name)
    write_table()
    if failed:
        sys.exit(f"{len(failed)} networks fail: {', '.join(failed)}")


if __name__ == "__main__":
    main()
