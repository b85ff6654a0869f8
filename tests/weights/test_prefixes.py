"""The network is found wherever it is in a checkpoint, in every format alike."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from resnet_jax import create_model, load_matching_weights, load_weights
from resnet_jax.weights.dialects.torch import to_state_dict, torch_rules
from resnet_jax.weights.prefixes import find_prefix
from tests.variables import random_variables
from tests.weights.test_torch_file import save_legacy, save_zip, tensor
from tests.weights.test_transformers import transformers_name

Tensors = dict[str, np.ndarray]
MODEL = create_model("resnet18", num_classes=5, width=8, stage_sizes=(1,))
HEADLESS = MODEL.clone(num_classes=0)
VARIABLES = random_variables(MODEL, np.zeros((1, 32, 32, 3), np.float32))
WEIGHTS = {
    # The writers of files would write the bytes of a transposed array in their original order.
    name: np.ascontiguousarray(array)
    for name, array in to_state_dict(VARIABLES, torch_rules(MODEL)).items()
}
HEADLESS_VARIABLES = VARIABLES | {
    "params": {name: leaves for name, leaves in VARIABLES["params"].items() if name != "head"}
}
BODY = {name: array for name, array in WEIGHTS.items() if not name.startswith("fc.")}


def under(prefix: str, tensors: Mapping[str, np.ndarray], add: float = 0) -> Tensors:
    return {prefix + name: array + np.float32(add) for name, array in tensors.items()}


def wrapped(tensors: Mapping[str, np.ndarray], *wrappers: str) -> Tensors:
    """Return the tensors of a network some of whose parts are in wrappers, one in the other."""
    path = "".join(f"{wrapper}." for wrapper in wrappers)
    parts = ("layer1.", "stages.0.", "conv1.", "bn1.", "conv1_1x1.", "attnpool.")
    names = {name: name for name in tensors}
    for part in parts:
        names = {name: new.replace(part, part + path) for name, new in names.items()}
    return {new: tensors[name] for name, new in names.items()}


def pickled(content: Any) -> Any:
    """Return the same content with tensors as the pickler of the tests writes them."""
    if isinstance(content, np.ndarray):
        return tensor(content, "FloatStorage")
    if isinstance(content, dict):
        return {key: pickled(value) for key, value in content.items()}
    return content


def flat(content: Any, path: str = "") -> Tensors:
    """Return content for a format that has no nested names."""
    if isinstance(content, np.ndarray):
        return {path: content}
    items = content.items() if isinstance(content, dict) else ()
    return {
        n: a for key, value in items for n, a in flat(value, f"{path}.{key}"[not path :]).items()
    }


def write_npz(path: Path, content: Any) -> Path:
    with path.open("wb") as file:
        np.savez(file, **flat(content))
    return path


def write_safetensors(path: Path, content: Any) -> Path:
    save_file(flat(content), path)
    return path


def write_shards(path: Path, content: Any) -> Path:
    """Write a directory with an index, as `transformers` does."""
    path.mkdir()
    tensors = flat(content)
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({n: array for n, array in tensors.items() if files[n] == file}, path / file)
    index = {"metadata": {"total_size": 0}, "weight_map": files}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


WRITERS: dict[str, Callable[[Path, Any], Any]] = {
    "mapping": lambda _, content: content,
    "npz": write_npz,
    "safetensors": write_safetensors,
    "shards": write_shards,
    "zip": lambda path, content: save_zip(path, pickled(content)),
    "legacy": lambda path, content: save_legacy(path, pickled(content)),
}
FORMATS = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
METRIC = {"criterion.weight": np.ones(5, np.float32), "metric.fc.bias": np.ones(5, np.float32)}
LAYOUTS: dict[str, Any] = {
    "model_state_dict": {"model_state_dict": WEIGHTS, "epoch": 3},
    "net": {"net": WEIGHTS},
    "nested": {"state_dict": {"model": WEIGHTS}},
    "averaged": under("module.", WEIGHTS) | {"n_averaged": np.array(7.0, np.float32)},
    "compiled": under("_orig_mod.module.", WEIGHTS),
    "module.model": under("module.model.", WEIGHTS),
    "_orig_mod.model": under("_orig_mod.model.", WEIGHTS),
    "twice": under("module.module.", WEIGHTS),
    "lightning": {"state_dict": under("model.", WEIGHTS) | METRIC, "global_step": 3},
    "params": {"params": WEIGHTS, "iter": 3},
    "unheard of": {"weights": {"nets": under("trunk._blocks.", WEIGHTS)}},
    "transformers": {"sd": under("model.", {transformers_name(n): a for n, a in WEIGHTS.items()})},
    "wrapped parts": wrapped(WEIGHTS, "_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
    "all wrapped": under("module.", wrapped(WEIGHTS, "module", "_orig_mod")),
    "wrapped in fabric": {"model": under("_forward_module.", wrapped(WEIGHTS, "_orig_mod"))},
    "transformers, wrapped": wrapped(
        {transformers_name(n): a for n, a in WEIGHTS.items()}, "module"
    ),
    # The teacher has the names of the student and others, and its kernels are wider.
    "another network": {
        "teacher": {name: np.concatenate([array, array]) for name, array in WEIGHTS.items()},
        "student": WEIGHTS,
    },
}


def assert_loaded(loaded: Mapping[str, Any], expected: Mapping[str, Any] = VARIABLES) -> None:
    jax.tree.map(np.testing.assert_array_equal, dict(loaded), dict(expected))


@FORMATS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_network_is_found(
    layout: str, write: Callable[[Path, Any], Any], tmp_path: Path
) -> None:
    assert_loaded(load_weights(MODEL, write(tmp_path / "file", LAYOUTS[layout])))


DINO = {
    "student": under("module.backbone.", BODY) | under("module.head.", METRIC),
    "teacher": under("backbone.", BODY, add=1) | under("head.", METRIC),
}
MOCO = {
    "state_dict": {
        **under("module.encoder_q.", BODY),
        **under("module.encoder_k.", BODY, add=1),
        "module.encoder_q.fc.0.weight": np.ones((4, 8), np.float32),
        "module.queue": np.ones((4, 4), np.float32),
    }
}
EMA = {"state_dict": WEIGHTS, "state_dict_ema": under("", WEIGHTS, add=1)}
BESIDE = under("", WEIGHTS) | under("ema.", WEIGHTS, add=1)


@FORMATS
@pytest.mark.parametrize(
    ("content", "names", "choice", "added"),
    [
        (DINO, ("'student.module.backbone.'", "'teacher.backbone.'"), "teacher.backbone.", 1),
        (DINO, ("'student.module.backbone.'", "'teacher.backbone.'"), "student", 0),
        (MOCO, ("encoder_k.'", "encoder_q.'"), "encoder_q.", 0),
        (MOCO, ("encoder_k.'", "encoder_q.'"), "state_dict.module.encoder_k", 1),
        (EMA, ("'state_dict.'", "'state_dict_ema.'"), "state_dict_ema.", 1),
        (EMA, ("'state_dict.'", "'state_dict_ema.'"), "state_dict", 0),
        (BESIDE, (r"'' \(none\)", "'ema.'"), "ema.", 1),
    ],
)
def test_several_networks_are_named_and_one_is_chosen(
    content: Any,
    names: tuple[str, str],
    choice: str,
    added: float,
    write: Callable[[Path, Any], Any],
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "file", content)
    expected = jax.tree.map(lambda array: array + np.float32(added), HEADLESS_VARIABLES)
    with pytest.raises(ValueError, match=f"{names[0]}, .*{names[1]}; choose one with .* prefix"):
        load_weights(HEADLESS, source)
    loaded, report = load_matching_weights(HEADLESS, source, prefix=choice)
    assert_loaded(loaded, expected)
    assert choice in report.prefix
    told = {report.prefix + name for name in report.loaded + report.unused}
    assert told | {*report.beside} == set(flat(content))
    with pytest.raises(ValueError, match=r"under the prefix 'momentum\.'; it has them under "):
        load_weights(HEADLESS, source, prefix="momentum", strict=False)


def test_the_head_of_a_projector_is_replaced() -> None:
    loaded, report = load_matching_weights(MODEL, MOCO, prefix="encoder_q", new_head=True)
    assert_loaded(load_weights(MODEL, MOCO, prefix="encoder_q", new_head=True), loaded)
    assert_loaded(loaded["batch_stats"], VARIABLES["batch_stats"])
    assert report.initialized == ("fc.bias", "fc.weight")
    assert report.unused == ("fc.0.weight",)


def test_no_prefix_is_a_choice() -> None:
    assert_loaded(
        load_weights(MODEL, BESIDE | {}, prefix="ema"), load_weights(MODEL, EMA["state_dict_ema"])
    )
    # The other network is not a part of it: its tensors are those that the model does not have.
    with pytest.raises(ValueError, match=r"17 unexpected \(ema\."):
        load_weights(MODEL, BESIDE, prefix="")
    assert_loaded(load_weights(MODEL, BESIDE, prefix="", strict=False))


def test_a_network_with_a_head_is_preferred_where_a_head_is_needed() -> None:
    content = {"student": WEIGHTS, "teacher": under("", BODY, add=1)}
    assert_loaded(load_weights(MODEL, content))
    with pytest.raises(ValueError, match=r"'student\.', 'teacher\.'"):
        load_weights(MODEL, content, new_head=True)


def test_a_backbone_without_a_head_needs_a_new_one() -> None:
    content = {"state_dict": under("backbone.", BODY) | under("projector.", METRIC)}
    with pytest.raises(
        ValueError, match=r"\(under the prefix 'state_dict\.backbone\.'\): 2 missing"
    ):
        load_weights(MODEL, content)
    for new_head in (True, "if_needed"):
        loaded = load_weights(MODEL, content, new_head=new_head)
        assert_loaded(loaded["batch_stats"], VARIABLES["batch_stats"])
    _, report = load_matching_weights(HEADLESS, content)
    assert report.beside == tuple(f"state_dict.projector.{name}" for name in METRIC)
    assert "2 beside (state_dict.projector.criterion.weight, " in str(report)
    assert str(report).startswith("weights (under the prefix 'state_dict.backbone.'): 15 loaded, ")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"encoder.weight": np.ones(3)},
            r": 17 missing .*1 unexpected \(encoder\.weight\)",
        ),
        ({name: array[None] for name, array in under("a.", WEIGHTS).items()}, "17 misshapen"),
        ({name: array.astype(complex) for name, array in WEIGHTS.items()}, "17 not dense real"),
        ({"epoch": 3}, "17 missing"),
    ],
)
def test_weights_of_which_nothing_fits_are_refused(source: Any, message: str, strict: bool) -> None:
    fit = "these weights do not fit the model" if strict else "no tensor of these weights fits the "
    with pytest.raises(ValueError, match=f"{fit}.*{message}"):
        load_weights(MODEL, source, strict=strict)


def test_tensors_that_are_not_dense_are_refused_only_as_weights() -> None:
    sparse = {"fc.bias": np.array("a sparse tensor")}
    assert_loaded(load_weights(MODEL, {"net": WEIGHTS, "other": sparse}))
    with pytest.raises(
        ValueError, match=r"1 not dense real numbers \(fc\.bias is a sparse tensor\)$"
    ):
        load_weights(MODEL, WEIGHTS | sparse)
    _, report = load_matching_weights(MODEL, WEIGHTS | sparse)
    assert report.initialized == ("fc.bias",)


def test_image_channels_come_from_the_network_that_is_chosen() -> None:
    grey = WEIGHTS | {"conv1.weight": WEIGHTS["conv1.weight"].sum(1, keepdims=True)}
    kernel = load_weights(MODEL, {"a": BODY, "b": grey})["params"]["stem"]["conv"]["kernel"]
    assert kernel.shape[2] == 1


def test_one_of_several_incomplete_networks_is_not_chosen_silently() -> None:
    less = {name: array for name, array in WEIGHTS.items() if name != "bn1.bias"}
    content = {"a": less, "b": less}
    with pytest.raises(ValueError, match=r"prefix 'a\.'\): 1 missing \(bn1\.bias\)$"):
        load_weights(MODEL, content)
    with pytest.raises(ValueError, match=r"16 of the 17 tensors .* 'a\.', 'b\.'; choose"):
        load_matching_weights(MODEL, content)


def test_wrapped_parts_of_one_of_two_networks_are_found() -> None:
    student = wrapped(BODY, "_orig_mod")
    content = {
        "student": under("module.backbone.", student),
        "teacher": under("backbone.", student, add=1),
        "module": under("", BODY, add=2),
    }
    del content["module"]["bn1.bias"]
    with pytest.raises(ValueError, match=r"'student\.backbone\.', 'teacher\.backbone\.'; choose"):
        load_weights(HEADLESS, content)
    for prefix in ("student.module.backbone", "student.backbone.", "student"):
        assert_loaded(load_weights(HEADLESS, content, prefix=prefix), HEADLESS_VARIABLES)


def test_a_network_and_its_average_keep_the_names_of_wrappers() -> None:
    average = under("net.module.", wrapped(WEIGHTS, "module"), add=1)
    content = under("net.", wrapped(WEIGHTS, "module")) | average
    # Without wrappers, the two would have the same names.
    with pytest.raises(ValueError, match="these weights do not fit the model"):
        load_weights(MODEL, content)
    averaged = under("module.", wrapped(WEIGHTS, "module")) | {"n_averaged": np.ones(())}
    loaded, report = load_matching_weights(MODEL, averaged)
    assert_loaded(loaded)
    assert_loaded(load_weights(MODEL, averaged))
    assert (report.prefix, report.beside) == ("module.", ("n_averaged",))


def test_prefixes_of_names_end_where_a_name_can_begin() -> None:
    tensors = {"xfc.bias": np.ones(2), "net.fc.bias": np.ones(2)}
    assert find_prefix(tensors, {"fc.bias": 2}, None, strict=True) == "net."
    assert find_prefix({}, {"fc.bias": 2}, None, strict=True) == ""


@pytest.mark.parametrize(
    "index", [b"{}", b'{"weight_map": 3}', b'{"weight_map": {"x": 3}}', b"<html>"]
)
def test_a_damaged_index_is_refused(index: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(index)
    with pytest.raises(ValueError, match=r"index\.json: not an index of weight files.*; fetch it"):
        load_weights(MODEL, path)


def test_shards_are_looked_for_beside_their_index_only(tmp_path: Path) -> None:
    directory = write_shards(tmp_path / "repository", WEIGHTS)
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shard = next(iter(set(index["weight_map"].values())))
    path.write_text(json.dumps({"weight_map": index["weight_map"] | {"fc.gain": shard}}))
    with pytest.raises(ValueError, match=r"lacks 'fc\.gain', which model\.safetensors\.index"):
        load_weights(MODEL, path)
    (directory / shard).unlink()
    with pytest.raises(ValueError, match=rf"{shard}: there is no such file"):
        load_weights(MODEL, directory)
    path.write_text(json.dumps({"weight_map": {"x": "../weights.safetensors"}}))
    with pytest.raises(ValueError, match="must name files beside it that are no indices"):
        load_weights(MODEL, path)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"no checkpoint in it, and no model\.safetensors .*; give"
    ):
        load_weights(MODEL, tmp_path)
