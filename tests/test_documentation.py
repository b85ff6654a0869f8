"""The documentation is true: its code runs, its links lead somewhere, its figures agree."""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from orbax.checkpoint import v1
from PIL import Image
from safetensors.numpy import save_file

from benchmarks import ablation, digits
from resnet_jax import create_model, list_models, list_pretrained
from resnet_jax.export.program import build_program, describe
from resnet_jax.export.stablehlo import write_stablehlo
from resnet_jax.export.transformers import write_transformers
from resnet_jax.weights.structure import structure
from tests.export.networks import pixels, tiny
from tests.fast_compilation import FLAGS
from tests.golden import golden
from tests.weights.flax_example import FlaxExample
from tests.weights.test_torch_file import save_zip, tensor

ROOT = Path(__file__).parent.parent
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def python_of(page: Path) -> str:
    return "\n".join(code for language, code in blocks_of(page) if language == "python")


def ones_like(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), tree)


def write_weights(directory: Path) -> None:
    """Write the sources of weights and the photo that pages name and do not write themselves."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(directory / "cat.jpg")
    (directory / "photos").mkdir()
    for name in ("1.jpg", "2.jpg"):
        Image.fromarray(noise[: 30 * int(name[0])]).save(directory / "photos" / name)
    weights = golden.state_dict("resnet18")
    state = {f"module.{name}": tensor(array) for name, array in weights.items()}
    checkpoint = {"epoch": 90, "state_dict": state, "args": argparse.Namespace(lr=0.1)}
    save_zip(directory / "resnet18.pth", checkpoint)

    repository = directory / "hub" / "models--timm--resnet18.a1_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(weights, snapshot / "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)

    run = directory / "runs" / "digits-resnet20" / "checkpoints" / "1000"
    run.parent.mkdir(parents=True)
    ocp: Any = v1
    ocp.save(run, ones_like(structure(create_model("cifar_resnet20"), in_channels=1)))

    example = partial(FlaxExample((2, 2, 2, 2), bottleneck=False).init, train=False)
    variables = jax.eval_shape(example, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    content = msgpack_serialize({"step": 112500, **ones_like(variables)})
    (directory / "checkpoint_112500").write_bytes(content)


def write_photos(directory: Path) -> None:
    """Write a folder of noise of two classes, with a validation and a test split."""
    rng = np.random.default_rng(0)
    for split in ("val", "test"):
        for name in ("tabby", "tench"):
            (directory / "photos" / split / name).mkdir(parents=True)
            for i in range(3):
                noise = rng.integers(0, 256, (60, 80, 3), np.uint8)
                Image.fromarray(noise).save(directory / "photos" / split / name / f"{i}.jpg")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the weights and the photos."""
    directory = tmp_path_factory.mktemp("sources")
    write_weights(directory)
    write_photos(directory)
    return directory


def write_export(directory: Path) -> None:
    """Write the run and the export that the page on exports names, and an image."""
    small = tiny()
    write_transformers(small, directory / "runs" / "flowers")
    program = build_program(small, by_platform=True)
    write_stablehlo(program, directory / "flowers.stablehlo", metadata=describe(small))
    Image.fromarray(pixels(1, small)[0]).save(directory / "cat.jpg")


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if python_of(page) and page != TUTORIAL],
    ids=lambda page: page.name,
)
def test_python_runs_as_written(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if page.name in ("evaluation.md", "explanation.md", "models.md", "prediction.md"):
        sources = request.getfixturevalue("sources")
        shutil.copytree(sources, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    code = python_of(page)
    if page.name == "export.md":
        write_export(tmp_path)
        code = "import numpy\nimages = numpy.zeros((1, 32, 32, 3), numpy.uint8)\n" + code
    environment = {
        **os.environ,
        # Two devices, so that loops over devices exchange something.
        "XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count=2",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert process.returncode == 0, process.stderr


def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    lines = ["set -eo pipefail", f'resnet-jax() {{ {sys.executable} -m resnet_jax "$@"; }}']
    for language, code in blocks_of(TUTORIAL):
        if language == "python":
            lines += [f"{sys.executable} - <<'END OF PYTHON'", code, "END OF PYTHON"]
        elif not code.startswith("pip install"):
            lines.append(code)
    process = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        # One device, as most readers have.
        env={**os.environ, "XLA_FLAGS": FLAGS, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "runs" / "photos" / "result.json").read_text())
    assert result["top1"] > 0.7, "a guess is right in a quarter of the cases"
    with (tmp_path / "predictions.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + 32
    assert len(list((tmp_path / "explanations").rglob("*.png"))) >= 16


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"(?:\]\(|src=\"|href=\")([^)#\"]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_feature_pyramid_is_as_short_as_it_looks() -> None:
    code = python_of(ROOT / "docs" / "features.md")
    pyramid = code[code.index("import flax.linen") : code.index("backbone = ")]
    assert len(pyramid.splitlines()) <= 60


def test_the_ablation_is_the_one_that_was_measured() -> None:
    # `python -m benchmarks.ablation` writes the file and prints the rows.
    results = json.loads(ablation.RESULTS.read_text())
    page = (ROOT / "docs" / "optimization.md").read_text()
    assert "\n".join(ablation.rows(results)) in page
    assert f"{results['date']}, commit {results['commit']}" in page


def test_the_accuracies_of_the_digits_are_those_that_were_measured() -> None:
    # `python -m benchmarks.digits` writes the file and prints the row.
    results = json.loads(digits.RESULTS.read_text())
    assert digits.row(results) in (ROOT / "README.md").read_text().splitlines()
    docstring = (ROOT / "configs" / "digits_resnet20.py").read_text().split('"""')[1]
    stated = [float(percent) for percent in re.findall(r"([\d.]+) %", docstring)]
    assert stated == [round(100 * top1, 2) for top1 in results["top1"]]
    # No other page repeats them.
    others = [page for page in PAGES if page.name not in ("README.md", "CHANGELOG.md")]
    for page in others:
        assert f"{100 * results['top1'][0]:.2f} %" not in page.read_text(), page


def test_the_bounds_of_equality_with_pytorch_are_stated_once() -> None:
    assert not re.search(r"\b\d(\.\d)?e-\d", (ROOT / "README.md").read_text())


def test_the_readme_is_short_and_counts_right() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert f"{len(list_models())} networks" in text
    assert f"{len(list_pretrained())} published weights" in text


def test_the_readme_has_the_commands_that_ci_runs() -> None:
    lines = [
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("python3 -m venv ")
    ]
    assert lines[0].endswith("train.py")
    assert lines[1].endswith("pytest -q")
