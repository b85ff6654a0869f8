"""A run directory belongs to one configuration."""

import dataclasses
import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from resnet_jax.config import CosineConfig, SGDConfig, TrainConfig
from resnet_jax.training.rundir.workdir import Workdir, WorkdirError


def content(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_new_directory_holds_the_resolved_configuration(
    tmp_path: Path, small_config: TrainConfig
) -> None:
    with Workdir(tmp_path / "a" / "b", small_config) as workdir:
        stored = json.loads((workdir.path / "config.json").read_text())
        assert workdir.result is None
    assert stored["data"]["kind"] == "digits"
    assert stored["optimizer"]["learning_rate"] == 0.1


def test_the_same_configuration_may_come_back(tmp_path: Path, small_config: TrainConfig) -> None:
    with Workdir(tmp_path / "run", small_config) as workdir:
        workdir.complete({"top1": 0.5})
    assert Workdir(tmp_path / "run", small_config).result == {"top1": 0.5}


def test_another_configuration_is_refused_with_the_fields_named(
    tmp_path: Path, small_config: TrainConfig
) -> None:
    Workdir(tmp_path / "run", small_config).close()
    before = content(tmp_path)
    other = dataclasses.replace(
        small_config,
        seed=3,
        optimizer=SGDConfig(learning_rate=0.2),
        schedule=CosineConfig(warmup_epochs=0.1),
    )
    with pytest.raises(WorkdirError) as error:
        Workdir(tmp_path / "run", other)
    assert "seed: 0 there, 3 here" in str(error.value)
    assert "optimizer.learning_rate: 0.1 there, 0.2 here" in str(error.value)
    assert "momentum" not in str(error.value)
    assert content(tmp_path) == before


def test_files_of_others_are_left_alone(tmp_path: Path, small_config: TrainConfig) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(WorkdirError, match=r"not empty and holds no config\.json"):
        Workdir(tmp_path, small_config)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_configuration_is_named(tmp_path: Path, small_config: TrainConfig) -> None:
    Workdir(tmp_path / "run", small_config).close()
    stored = tmp_path / "run" / "config.json"
    stored.write_text(stored.read_text()[:40])
    before = content(tmp_path)
    with pytest.raises(WorkdirError, match=r"config\.json is damaged") as error:
        Workdir(tmp_path / "run", small_config)
    assert "\n" not in str(error.value)
    assert content(tmp_path) == before


# Python warns about a file that is left open.
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_one_run_at_a_time(tmp_path: Path, small_config: TrainConfig) -> None:
    with Workdir(tmp_path, small_config):
        before = content(tmp_path)
        with pytest.raises(
            WorkdirError, match=rf"{tmp_path} is in use by process {os.getpid()} on .+; wait for it"
        ):
            Workdir(tmp_path, small_config)
        assert content(tmp_path) == before
    Workdir(tmp_path, small_config).close()


def test_a_run_that_died_before_its_configuration_was_written_can_be_repeated(
    tmp_path: Path, small_config: TrainConfig
) -> None:
    (tmp_path / "lock").write_text("process 1 on a machine that lost its power\n")
    with Workdir(tmp_path, small_config) as workdir:
        assert (workdir.path / "config.json").exists()


def test_a_file_system_without_locks_is_good_enough(
    tmp_path: Path, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with Workdir(tmp_path, small_config):
        assert (tmp_path / "config.json").exists()


def test_a_directory_that_cannot_be_written_to_is_named(small_config: TrainConfig) -> None:
    # Even the administrator cannot make a directory there.
    with pytest.raises(WorkdirError, match=r"^/sys.*; mend that, or use another run directory$"):
        Workdir(Path("/sys/resnet_jax_run"), small_config)


def test_the_other_processes_must_see_what_the_first_has_written(
    tmp_path: Path, small_config: TrainConfig
) -> None:
    with pytest.raises(WorkdirError, match="that all of them share"):
        Workdir(tmp_path / "of another machine", small_config, claim=False)
    with Workdir(tmp_path / "run", small_config):
        Workdir(tmp_path / "run", small_config, claim=False)
