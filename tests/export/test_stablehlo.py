"""A StableHLO file is a whole network: it runs without Flax and without this library."""

import io
import json
import pickle
import re
import subprocess
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import Classifier
from resnet_jax.export import stablehlo
from resnet_jax.export.int8 import quantize_program
from resnet_jax.export.program import build_program, describe
from resnet_jax.export.stablehlo import ExportError, load, read_metadata, write_stablehlo
from tests.export.networks import pixels, probabilities
from tests.ops.test_platform import operations

ROOT = Path(__file__).parents[2]
BLOCKED = """
import sys
for name in ("flax", "optax", "orbax", "resnet_jax"):
    sys.modules[name] = None
"""


def loader_lines() -> str:
    """Return the lines with which the documentation loads a file."""
    page = (ROOT / "docs" / "export.md").read_text()
    (code,) = [
        code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "np.load" in code
    ]
    return code


def run_alone(file: Path, images: np.ndarray, directory: Path) -> np.ndarray:
    """Return what a process without Flax and without this library computes."""
    np.save(directory / "images.npy", images)
    code = f'{BLOCKED}\nimport numpy as np\nimages = np.load("images.npy")\n' + loader_lines()
    code = code.replace('"flowers.stablehlo"', repr(str(file)))
    code += '\nnp.save("result.npy", probabilities)\nassert metadata["class_names"]'
    subprocess.run([sys.executable, "-c", code], cwd=directory, check=True)
    return np.load(directory / "result.npy")


@pytest.mark.parametrize("int8", [False, True])
def test_a_process_without_flax_computes_the_same(
    stablehlo_file: Path, tiny_classifier: Classifier, int8: bool, tmp_path: Path
) -> None:
    images = pixels(3, tiny_classifier)
    file, tolerance = stablehlo_file, 1e-6
    if int8:
        file, tolerance = tmp_path / "int8.stablehlo", 0.05
        program = quantize_program(build_program(tiny_classifier, by_platform=True))
        content = write_stablehlo(program, file, metadata=describe(tiny_classifier))
        assert content["program"]["kernels"] == "int8"
        full, quantized = (
            sum(array.nbytes for array in load(path).weights.values())
            for path in (stablehlo_file, file)
        )
        assert quantized < 0.3 * full
    np.testing.assert_allclose(
        run_alone(file, images, tmp_path), probabilities(tiny_classifier, images), atol=tolerance
    )


def test_the_loaded_export_takes_any_number_of_images(
    stablehlo_file: Path, tiny_classifier: Classifier
) -> None:
    export = load(stablehlo_file)
    assert export.class_names == ("cat", "dog", "fox")
    for count in (1, 3):
        images = pixels(count, tiny_classifier)
        np.testing.assert_allclose(
            export(images), probabilities(tiny_classifier, images), atol=1e-6
        )


def test_each_platform_has_its_own_formulation(stablehlo_file: Path) -> None:
    module = load(stablehlo_file).exported.mlir_module()
    # Checks of symbolic sizes are no operations of a platform.
    module = re.sub(r".*custom_call @shape_assertion.*\n", "", module)
    found = {name: operations(module, name) for name in stablehlo.PLATFORMS}
    # The stem, two convolutions in each of four blocks, and three projections.
    for name in ("cuda", "tpu"):
        assert found[name]["stablehlo.convolution"] == 1 + 4 * 2 + 3
        assert found[name]["stablehlo.dot_general"] == 1, "the head alone"
        assert found[name]["stablehlo.reduce_window"] == 1
    assert found["cpu"]["stablehlo.dot_general"] > 1
    assert "stablehlo.reduce_window" not in found["cpu"]


def test_the_metadata_travel_with_the_program(
    stablehlo_file: Path, tiny_classifier: Classifier
) -> None:
    metadata = read_metadata(stablehlo_file)
    expected = describe(tiny_classifier)
    changing = {"date": None, "program": None}
    assert metadata | changing == expected | changing
    assert metadata["program"] == {
        "format": "stablehlo",
        "image_shape": [32, 32, 3],
        "batch": "dynamic",
        "platforms": ["cpu", "cuda", "tpu"],
        "folded": True,
        "kernels": "float32",
    }


def test_images_may_have_any_size(tiny_classifier: Classifier, tmp_path: Path) -> None:
    file = tmp_path / "any.stablehlo"
    program = build_program(tiny_classifier, by_platform=True)
    content = write_stablehlo(
        program, file, metadata=describe(tiny_classifier), any_size=True, platforms=["cpu"]
    )
    assert content["program"]["image_shape"] == ["dynamic", "dynamic", 3]
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), np.uint8)
    np.testing.assert_allclose(
        load(file)(images), probabilities(tiny_classifier, images), atol=1e-6
    )


def test_a_fixed_number_of_images_is_checked(tiny_classifier: Classifier, tmp_path: Path) -> None:
    file = tmp_path / "two.stablehlo"
    program = build_program(tiny_classifier)
    write_stablehlo(program, file, metadata=describe(tiny_classifier), batch=2, platforms=["cpu"])
    export = load(file)
    assert export(pixels(2, tiny_classifier)).shape == (2, 3)
    with pytest.raises(
        ValueError, match=r"takes uint8\[2, 32, 32, 3\], but .* uint8\[3, 32, 32, 3\]"
    ):
        export(pixels(3, tiny_classifier))
    with pytest.raises(ValueError, match=r"but the images are float32\[2, 32, 32, 3\]"):
        export(pixels(2, tiny_classifier).astype(np.float32))


def test_another_platform_is_refused(tiny_classifier: Classifier, tmp_path: Path) -> None:
    file = tmp_path / "tpu.stablehlo"
    program = build_program(tiny_classifier)
    with pytest.raises(
        ValueError, match="unknown platform 'gpu': choose from cpu, cuda, tpu, rocm"
    ):
        write_stablehlo(program, file, metadata={}, platforms=["gpu"])
    assert not file.exists()
    write_stablehlo(program, file, metadata=describe(tiny_classifier), platforms=["tpu"])
    with pytest.raises(
        ValueError, match=r"exported for tpu, and this machine has cpu; .*--platforms cpu"
    ):
        load(file)(pixels(1, tiny_classifier))


def test_a_failed_write_leaves_the_old_file(
    tiny_classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    file = tmp_path / "old.stablehlo"
    file.write_bytes(b"old")
    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space"):
        write_stablehlo(build_program(tiny_classifier), file, metadata={}, platforms=["cpu"])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """Return a file with one wrong bit in the middle of an array."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def rewritten(content: bytes, **members: bytes | None) -> bytes:
    """Return an archive with other members, or without those that are None."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            key = name.removesuffix(".npy").replace("/", "_")
            if (data := members.get(key, old.read(name))) is not None:
                new.writestr(name, data)
    return result.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def huge(content: bytes) -> bytes:
    """Return a file whose weights announce more memory than any machine has."""
    header = b"(10, 10), }         ", b"(99999, 999999), }  "
    array = npy(np.zeros((10, 10), np.float32)).replace(*header)
    assert b"999999" in array
    return rewritten(content, params_head_kernel=array)


def compressed(content: bytes) -> bytes:
    result = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return result.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "is damaged, or no StableHLO export"),
        (truncated, "is damaged, or no StableHLO export"),
        (flipped, "is damaged, or no StableHLO export"),
        (lambda _: b"# StableHLO", "is damaged, or no StableHLO export"),
        (lambda content: rewritten(content, program=None), "is no StableHLO export of resnet_jax"),
        (lambda content: rewritten(content, metadata=npy(np.zeros(3, np.uint8))), "is damaged"),
        (lambda content: rewritten(content, metadata=b"text"), "is damaged"),
        (huge, "is not what its header announces"),
        (compressed, "is compressed"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    stablehlo_file: Path, damage: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "damaged.stablehlo"
    file.write_bytes(damage(stablehlo_file.read_bytes()))
    with pytest.raises(ExportError, match=message) as error:
        load(file)
    text = str(error.value)
    assert text.startswith(str(file))
    assert "resnet-jax export RUN --format stablehlo" in text
    assert "\n" not in text


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file; check the path"):
        load(tmp_path / "absent.stablehlo")


def test_a_program_that_jax_no_longer_reads_names_the_remedy(
    stablehlo_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_: bytearray) -> None:
        raise ValueError("The version of the artifact has expired.\nSee the documentation.")

    monkeypatch.setattr(jax.export, "deserialize", refuse)
    with pytest.raises(ExportError) as error:
        load(stablehlo_file)
    assert re.search(
        rf"exported on \d{{4}}-\d\d-\d\d with jax {re.escape(jax.__version__)}, and jax .* cannot "
        r"read it \(The version of the artifact has expired\.\); JAX reads exports for six months; "
        "export the network again",
        str(error.value),
    )
    monkeypatch.undo()
    # A program of other bytes, too.
    file = tmp_path / "other.stablehlo"
    file.write_bytes(
        rewritten(stablehlo_file.read_bytes(), program=npy(np.arange(200, dtype=np.uint8)))
    )
    with pytest.raises(ExportError, match="cannot read it"):
        load(file)


def test_nothing_is_unpickled(stablehlo_file: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    array = np.empty(1, object)
    array[0] = Trap()
    file = tmp_path / "trap.stablehlo"
    file.write_bytes(rewritten(stablehlo_file.read_bytes(), params_head_bias=npy(array)))
    with pytest.raises(ExportError, match="is not what its header announces"):
        load(file)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(ValueError, match="Object arrays cannot be loaded when allow_pickle=False"):
        np.load(file)["params/head/bias"]
    pickle.loads(pickle.dumps(array))
    assert (tmp_path / "executed").exists(), "the trap works"


def test_calls_out_of_stablehlo_are_refused(stablehlo_file: Path, tmp_path: Path) -> None:
    matrix = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    exported = jax.export.export(jax.jit(jnp.linalg.cholesky), platforms=["cpu"])(matrix)
    program = npy(np.frombuffer(bytes(exported.serialize()), np.uint8))
    file = tmp_path / "foreign.stablehlo"
    file.write_bytes(rewritten(stablehlo_file.read_bytes(), program=program))
    with pytest.raises(ExportError, match=r"calls lapack_\w+ outside of StableHLO"):
        load(file)


def test_the_module_needs_neither_flax_nor_the_networks(stablehlo_file: Path) -> None:
    code = BLOCKED.replace('"resnet_jax"', "") + textwrap.dedent(f"""
        from resnet_jax.export import stablehlo
        assert stablehlo.load({str(stablehlo_file)!r}).class_names == ("cat", "dog", "fox")
        assert "resnet_jax.models" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_metadata_are_json_without_surprises(stablehlo_file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.load(stablehlo_file) as file:
            metadata = json.loads(bytes(file["metadata"]))
    assert metadata == read_metadata(stablehlo_file)
