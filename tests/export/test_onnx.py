"""ONNX models compute what the networks compute, and what has no translation is named."""

import stat
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from resnet_jax import GroupNorm, create_model, list_models
from resnet_jax.data.augment.normalization import normalize
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.export.onnx import UnsupportedError, to_onnx, write_onnx, writing
from resnet_jax.inference.fold import fold_batch_norm
from resnet_jax.models import layers
from resnet_jax.models.shortcuts import AveragePoolShortcut
from tests.comparison import deviation
from tests.export.onnx_kinds import REPRESENTATIVES, kinds_of
from tests.variables import random_variables


def run(model: onnx.ModelProto | Path, images: np.ndarray) -> np.ndarray:
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [result] = session.run(None, {session.get_inputs()[0].name: images})
    return result


def symbolic(shape: str, dtype: Any = np.float32, constraints: Any = ()) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape, constraints=constraints), dtype)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def network(name: str, **overrides: Any) -> tuple[Any, Any]:
    """Return a function of (variables, images), and random variables."""
    model = create_model(name, **{"num_classes": 5, **overrides})
    channels = model.in_channels or 3
    variables = random_variables(model, jax.ShapeDtypeStruct((1, 32, 32, channels), np.float32))

    def function(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, train=False)

    return function, variables


def test_every_kind_of_part_in_the_table_has_a_representative() -> None:
    wanted = {kind: name for name in list_models() for kind in kinds_of(create_model(name))}
    for name, overrides in REPRESENTATIVES:
        for kind in kinds_of(create_model(name, **overrides)):
            wanted.pop(kind, None)
    assert not wanted, "add a network that has it to tests/export/onnx_kinds.py"


@pytest.mark.parametrize(("name", "overrides"), REPRESENTATIVES)
def test_logits_are_equal(name: str, overrides: dict[str, Any]) -> None:
    function, variables = network(name, **overrides)
    images = noise(2, 32, 32, 3)
    model = to_onnx(function, (variables, symbolic("b, 32, 32, 3")))
    onnx.checker.check_model(model, full_check=True)
    assert deviation(run(model, images), jax.jit(function)(variables, images)) < 1e-5


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("seresnet18", {"width": 32, "norm": GroupNorm, "stage_sizes": (1,)}),
        (
            "resnetblur18",
            {"width": 8, "shortcut": AveragePoolShortcut, "global_pool": "avgmax"},
        ),
    ],
)
def test_one_model_takes_images_of_every_size(name: str, overrides: dict[str, Any]) -> None:
    function, variables = network(name, **{"stage_sizes": (1, 1), **overrides})
    constraints = ["height >= 16", "width >= 16"]
    images = symbolic("batch, height, width, 3", constraints=constraints)
    model = to_onnx(function, (variables, images))
    compiled = jax.jit(function)
    for shape in ((1, 32, 32, 3), (3, 45, 38, 3)):
        pixels = noise(*shape)
        assert deviation(run(model, pixels), compiled(variables, pixels)) < 1e-5


def test_bytes_are_normalized_and_resampled_inside() -> None:
    """The digits are resampled by the device, at positions that do not depend on the image."""
    preprocessing = Preprocessing(
        image_size=8,
        crop_fraction=1.0,
        interpolation="linear",
        mean=(0.3,),
        std=(0.4,),
        channels=1,
        upsample_size=12,
    )
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    model = to_onnx(preprocessing.on_device, (symbolic("b, 8, 8, 1", np.uint8),))
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert deviation(run(model, images), preprocessing.on_device(images)) < 1e-6


def test_images_are_transposed_once_and_biases_are_merged() -> None:
    _, variables = network("resnet18", width=8)
    model, variables = fold_batch_norm(create_model("resnet18", num_classes=5, width=8), variables)

    def function(variables: Any, images: jax.Array) -> Any:
        images = normalize(images, (0.5,) * 3, (0.25,) * 3)
        return model.apply(variables, images, train=False)

    model_proto = to_onnx(function, (variables, symbolic("b, 32, 32, 3", np.uint8)))
    found = operators(model_proto)
    assert found.count("Transpose") == 1
    # Eight additions are those of the shortcuts.
    assert (found.count("Conv"), found.count("Add"), found.count("Relu")) == (20, 8, 17)
    assert {"ReduceMean", "Gemm"} < set(found)
    assert "params/stage4/block2/conv2/kernel" in {x.name for x in model_proto.graph.initializer}
    assert any(node.name == "stage4/block2/conv2/Conv" for node in model_proto.graph.node)


def test_what_depends_on_weights_alone_is_computed() -> None:
    """The kernels of BiT are standardized before they are stored."""
    function, variables = network("resnetv2_50x1_bit", width=32, stage_sizes=(1,), norm=GroupNorm)
    found = to_onnx(function, (variables, symbolic("b, 32, 32, 3")))
    constants = {x.name for x in found.graph.initializer}
    convolutions = [node for node in found.graph.node if node.op_type == "Conv"]
    assert all(node.input[1] in constants for node in convolutions)


def test_a_loop_over_blocks_is_unrolled() -> None:
    fields = {"width": 4, "stage_sizes": (5,), "scan": True}
    function, variables = network("resnet18", **fields)
    images = noise(2, 32, 32, 3)
    model = to_onnx(function, (variables, symbolic("b, 32, 32, 3")))
    assert deviation(run(model, images), function(variables, images)) < 1e-5


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.nn.gelu(x),
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: jax.nn.silu(x),
        lambda x: jax.nn.elu(x),
        lambda x: jax.nn.leaky_relu(x),
        lambda x: jax.nn.softplus(x),
        lambda x: jax.nn.hard_swish(x),
        lambda x: layers.global_max_pool(x),
        lambda x: layers.blur_pool(x),
        lambda x: layers.average_pool(x, 3),
        lambda x: layers.centered_average_pool(x, 2),
        lambda x: jnp.flip(x, 1)[:, 1:, ::2] ** 3,
        lambda x: jnp.argmin(x, axis=2) % 3 != 1,
        lambda x: jnp.clip(x, -0.5, 0.25),
        lambda x: jnp.stack([x, jnp.broadcast_to(x[:, :1], x.shape)], axis=1).sum(axis=(0, 3)),
        lambda x: jnp.einsum("bhwc,bhvc->bwv", x, x),
        lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, x),
        lambda x: jnp.tile(x, (1, 2, 1, 1)).swapaxes(1, 3).reshape(-1, 7),
        lambda x: x[:, jnp.array([0, 2]), jnp.array([1, 3])],
    ],
)
def test_functions_of_images_are_equal(function: Any) -> None:
    images = noise(2, 7, 9, 4)
    model = to_onnx(function, (symbolic("b, 7, 9, 4"),))
    onnx.checker.check_model(model, full_check=True)
    expected = np.asarray(function(images))
    found = run(model, images)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_primitive_is_named_with_its_layer() -> None:
    def act(x: jax.Array) -> jax.Array:
        return jnp.cumsum(x, axis=1)

    function, variables = network("resnet18", width=4, stage_sizes=(1,), act=act)
    message = r"'cumsum' has no translation to ONNX \(primitive 'cumsum' in stem\)"
    with pytest.raises(UnsupportedError, match=message):
        to_onnx(function, (variables, symbolic("b, 32, 32, 3")))


def test_a_network_that_needs_a_fixed_size_says_so() -> None:
    function, variables = network(
        "resnet50_clip", width=16, stem_widths=(8, 8, 16), stage_sizes=(1,)
    )
    with pytest.raises(UnsupportedError, match="fixed"):
        to_onnx(function, (variables, symbolic("b, h, w, 3")))


def test_metadata_names_and_versions_are_those_that_are_given(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    write_onnx(
        lambda weights, x: {"double": weights["two"] * x, "same": x},
        ({"two": np.float32(2)}, symbolic("n, 3")),
        file,
        metadata={"note": "text", "class_names": ["a", "é"]},
        opset=20,
        input_name="numbers",
    )
    model = onnx.load(file)
    assert [value.name for value in model.graph.input] == ["numbers"]
    assert [value.name for value in model.graph.output] == ["double", "same"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert model.opset_import[0].version == 20
    assert model.ir_version == 9
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties == {"note": "text", "class_names": '["a", "é"]'}


def test_the_newest_operators_can_be_asked_for() -> None:
    function, variables = network("resnet50d", width=8, stage_sizes=(1, 1))
    newest = onnx.defs.onnx_opset_version()
    model = to_onnx(function, (variables, symbolic("b, 32, 32, 3")), opset=newest)
    onnx.checker.check_model(model, full_check=True)
    for opset in (17, newest + 1):
        with pytest.raises(ValueError, match=f"opset must be 18 to {newest}, but it is {opset}"):
            to_onnx(function, (variables, symbolic("b, 32, 32, 3")), opset=opset)


def test_a_file_is_replaced_only_on_demand_and_has_the_usual_mode(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    (tmp_path / "usual").touch()
    write_onnx(jnp.sin, (symbolic("n"),), file)
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match=r"model\.onnx: the file exists already"):
        write_onnx(jnp.cos, (symbolic("n"),), file)
    assert file.read_bytes() == before
    write_onnx(jnp.cos, (symbolic("n"),), file, overwrite=True)
    assert file.read_bytes() != before
    with pytest.raises(FileNotFoundError, match="its directory does not exist"):
        write_onnx(jnp.cos, (symbolic("n"),), tmp_path / "none" / "model.onnx")


def test_a_model_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise onnx.checker.ValidationError("invalid")

    monkeypatch.setattr(writing.checker, "check_model", fail)
    with pytest.raises(onnx.checker.ValidationError):
        write_onnx(jnp.cos, (symbolic("n"),), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_too_large_are_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_LARGEST_FILE", 1000)
    weights, x = noise(32, 32), noise(2, 32)
    file = tmp_path / "model.onnx"
    write_onnx(lambda weights, x: x @ weights, (weights, symbolic("n, 32")), file)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    np.testing.assert_allclose(run(file, x), x @ weights, rtol=1e-5, atol=1e-5)


def test_there_must_be_one_input() -> None:
    with pytest.raises(ValueError, match=r"one argument must be a jax\.ShapeDtypeStruct"):
        to_onnx(jnp.sin, (np.float32(1),))
