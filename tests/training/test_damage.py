"""Damaged checkpoints are found, named and set aside, and the previous one is used."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax.training.rundir.checkpoints import CheckpointError, Checkpoints
from resnet_jax.training.state import TrainState
from resnet_jax.weights.formats.digests import describe_arrays
from tests.training.test_checkpoint import CONFIG, abstract, make_state

WIDTH = 4000

# The faults of each file of a step that make the step unusable.  With any other fault, a restore
# must still return exactly what was saved.
DATA = "state/ocdbt.process_0/d/*"
FAULTY = {
    "_CHECKPOINT_METADATA": {"delete", "truncate", "empty", "flip"},
    "metrics/metrics": {"truncate", "empty"},
    "state/_METADATA": {"delete", "truncate", "empty"},
    "state/array_metadatas/process_0": {"truncate", "empty"},
    "state/manifest.ocdbt": {"delete", "truncate", "empty", "flip"},
    "state/d/*": {"delete", "truncate", "empty", "flip"},
    DATA: {"delete", "truncate", "empty", "flip"},
}


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


FAULTS: dict[str, Callable[[Path], None]] = {
    "delete": Path.unlink,
    "truncate": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: os.truncate(file, 0),
    "flip": flip_a_bit,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 1 and 2 with incompressible arrays."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(directory, CONFIG) as checkpoints:
        for step in (1, 2):
            checkpoints.save(make_state(step, width=WIDTH), badness=step, metadata={"step": step})
    return directory


def restore(directory: Path) -> tuple[int, TrainState]:
    """Return the restored step and its state, after comparing the state with what was saved."""
    with Checkpoints(directory, CONFIG) as checkpoints:
        state, metadata = checkpoints.restore(abstract(make_state(1, width=WIDTH)))
        assert metadata == {"step": int(state.step)}
        assert checkpoints.latest_step == int(state.step)
    expected = make_state(int(state.step), width=WIDTH)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    return int(state.step), state


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_any_file_goes_unnoticed(
    saved: Path, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = [file.relative_to(saved / "2") for file in (saved / "2").rglob("*") if file.is_file()]
    data = [file for file in files if file.match(DATA)]
    assert [(saved / "2" / file).stat().st_size > 3 * 4 * WIDTH for file in data] == [True]
    noticed = set()
    for file in files:
        directory = tmp_path / str(file).replace("/", "-")
        shutil.copytree(saved, directory)
        FAULTS[fault](directory / "2" / file)
        caplog.clear()
        if restore(directory)[0] == 1:
            noticed.add(file)
            [message] = [
                record.getMessage() for record in caplog.records if "damaged" in record.message
            ]
            assert message.startswith(f"the checkpoint {directory / '2'} is damaged and now named")
            assert "\n" not in message
            assert sorted(path.name for path in directory.iterdir()) == ["1", "2.damaged"]
    expected = {
        file
        for file in files
        if any(file.match(pattern) and fault in faults for pattern, faults in FAULTY.items())
    }
    assert noticed >= expected


def test_a_flipped_bit_is_found_in_its_array(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    [file] = (directory / "2").glob(DATA)
    flip_a_bit(file)
    assert restore(directory)[0] == 1
    assert "differs from what was written in ['params/conv/kernel']" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_empty_step_is_passed_over_and_its_number_used_again(
    saved: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    (directory / "3").mkdir()
    assert restore(directory)[0] == 2
    for again in ("3", "3.damaged", "3.damaged+"):
        with Checkpoints(directory, CONFIG) as checkpoints:
            checkpoints.save(make_state(3, width=WIDTH), badness=3, metadata={"step": 3})
        assert restore(directory)[0] == 3
        assert (directory / again).exists()
        shutil.rmtree(directory / "3")
        (directory / "3").mkdir()
        assert restore(directory)[0] == 2


def test_where_none_is_left_there_is_no_new_start(saved: Path, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    for step in ("1", "2"):
        for file in (directory / step).glob(DATA):
            flip_a_bit(file)
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match=r"no undamaged checkpoint is left .* 1\.damaged, 2\.damaged; "
        ):
            restore(directory)
    assert describe_size(directory) == describe_size(saved), "nothing is deleted"


def describe_size(directory: Path) -> list[int]:
    return sorted(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@pytest.mark.parametrize("version", [2, None])
def test_another_schema_is_refused_and_left_alone(
    saved: Path, tmp_path: Path, version: int | None
) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    file = directory / "2" / "_CHECKPOINT_METADATA"
    content = json.loads(file.read_text())
    content["custom_metadata"]["schema_version"] = version
    file.write_text(json.dumps(content))
    with pytest.raises(
        CheckpointError, match=rf"schema version {version}, this resnet_jax reads 1"
    ):
        restore(directory)
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2"]


def test_special_values_are_what_they_were(tmp_path: Path) -> None:
    state = make_state(1, width=WIDTH)
    state.params["special"] = np.array([-0.0, np.nan, np.inf, 0.0], np.float32)
    state.params["negative_zeros"] = -np.zeros(300, np.float32)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(state, badness=0.0, metadata={})
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        restored, _ = checkpoints.restore(abstract(state))
    assert describe_arrays(restored) == describe_arrays(state)
    assert np.signbit(restored.params["negative_zeros"]).all()
