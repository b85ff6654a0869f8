"""The parts of the benchmark for accelerators that can be tested without an accelerator."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks import accelerator, normalization_kernels
from resnet_jax import create_model


def test_a_part_that_fails_or_takes_too_long_leaves_its_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(command: list[str], **kwargs: Any) -> None:
        assert command[:2] == [sys.executable, "-m"]
        part = command[2]
        if part == "fails":
            raise subprocess.CalledProcessError(1, command)
        if part == "hangs":
            raise subprocess.TimeoutExpired(command, kwargs["timeout"])
        Path(command[-1].removeprefix("--json=")).write_text(kwargs["env"].get("XLA_FLAGS", ""))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("XLA_FLAGS", "")
    assert "exit status 1" in accelerator.run_part(["fails"], 1)["error"]
    assert "timed out" in accelerator.run_part(["hangs"], 1)["error"]
    assert accelerator.run_part(["runs"], 1, flags="7") == 7

    path = tmp_path / "all.json"
    monkeypatch.setattr(sys, "argv", ["accelerator", f"--json={path}", "--torch-python=python"])
    monkeypatch.setattr(accelerator, "run_part", lambda command, _, flags: [command, flags])
    accelerator.main()
    results = json.loads(path.read_text())
    assert results.keys() == {
        "train_step",
        "variants",
        "kernels",
        "inference",
        *(f"flags: {name}" for name in accelerator.FLAGS),
    }
    assert "--timm" in results["train_step"][0]
    assert results["variants"][0][-len(accelerator.VARIANTS) :] == list(accelerator.VARIANTS)

    # Another run adds its parts, and keeps the others.
    path.write_text(json.dumps({"train_step": "kept", "kernels": "replaced"}))
    monkeypatch.setattr(sys, "argv", ["accelerator", f"--json={path}", "--parts", "kernels"])
    accelerator.main()
    results = json.loads(path.read_text())
    assert results.keys() == {"train_step", "kernels"}
    assert results["train_step"] == "kept"
    assert "--batch-size=256" in results["kernels"][0]


def test_xla_knows_every_flag(tmp_path: Path) -> None:
    flags = " ".join(accelerator.FLAGS.values()).format(cache=tmp_path)
    for given, known in ((flags, True), ("--xla_gpu_no_such_flag=true", False)):
        environment = os.environ | {"XLA_FLAGS": given, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", "import jax; jax.devices()"]
        ended = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert (ended.returncode == 0) == known


def test_the_kernels_are_measured_next_to_their_formulas(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "kernels.json"
    options = ["--batch-size=2", "--image-size=8", "--rounds=1", f"--json={path}"]
    monkeypatch.setattr(normalization_kernels, "LAYERS", [(56, 8), (28, 256)])
    monkeypatch.setattr(sys, "argv", ["normalization_kernels", *options])
    normalization_kernels.main()
    results = json.loads(path.read_text())["results"]
    assert [result["shape"] for result in results] == [[2, 4, 8]] * 3 + [[2, 1, 256]] * 3
    # Sums with a shortcut read the gradient, the input and the output, in bfloat16.
    assert results[4]["bytes"] == 3 * 2 * 256 * 2


@pytest.mark.parametrize("name", accelerator.VARIANTS)
def test_every_variant_takes_a_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        accelerator,
        "create_model",
        lambda name, **fields: create_model(name, stage_sizes=(1,), width=8, **fields),
    )
    stepper = accelerator.variant(
        jax.random.normal(jax.random.key(0), (2, 32, 32, 3)), **accelerator.VARIANTS[name]
    )
    state, metrics = stepper()
    assert state.step == accelerator.VARIANTS[name].get("steps", 1)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(metrics))
