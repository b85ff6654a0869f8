"""Publishing on a hub, which is a server on the loopback interface, and what can go wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnxruntime
import pytest
from huggingface_hub import constants

from resnet_jax.commands.main import main
from resnet_jax.export.push import PushError, plan, push
from resnet_jax.inference import Classifier
from resnet_jax.models.variants import _VARIANTS
from tests.export.loopback_hub import OWNER, READ_TOKEN, TOKEN, Hub, Refusal, serve
from tests.export.runs import write_run
from tests.training.tiny_train import NETWORKS

NAME = f"{OWNER}/noise"
FILES = {"README.md", "config.json", "model.safetensors"}


@pytest.fixture(scope="module", autouse=True)
def known_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, fields in NETWORKS.items():
            patch.setitem(_VARIANTS, name, fields)
        yield


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network that timm does not have."""
    return write_run(tmp_path_factory.mktemp("runs") / "noise", act="silu")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory to upload, without a network."""
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "README.md").write_text("---\nlicense: mit\n---\n\n# Noise\n")
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(bytes(1000))
    return directory


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that this process uses, with the token of a user who may write."""
    found = Hub()
    with serve(found) as endpoint:
        # The library reads the environment only once, when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found
        huggingface_hub.close_session()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's library repeat failed requests without waiting."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """Return the exit code of `resnet-jax push` and what it has printed."""
    with pytest.raises(SystemExit) as ended:
        main(["push", *map(str, argv)])
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err
    return int(ended.value.code or 0), captured.out, captured.err


def upload(files: Path, **options: Any) -> str:
    return push(plan(files, NAME, **options), files, "Upload noise")


def test_a_published_network_gives_the_same_probabilities(
    complete: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, complete, NAME)
    assert code == 0
    repository = hub.repositories[NAME]
    assert repository.commits["main"] == ["initial commit", "Upload noise with resnet_jax 0.1.0"]
    assert set(repository.branches["main"]) == FILES | {".gitattributes"}
    assert repository.large == {"model.safetensors"}
    assert f"published: {hub.endpoint}/{NAME}/commit/{repository.sha('main')}" in out

    local, published = Classifier.load(complete), Classifier.from_pretrained(f"hf://{NAME}")
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(published(images), local(images))
    assert published.class_names == local.class_names
    assert published.preprocessing == local.preprocessing
    assert published.calibration.temperature == 2.5
    assert published.calibration.threshold == 0.6
    # Neither the card nor the configuration names directories of the machine.
    texts = repository.branches["main"]["README.md"] + repository.branches["main"]["config.json"]
    assert b"/home" not in texts
    assert b"architecture" not in repository.branches["main"]["config.json"]
    assert b"timm has no network that takes these weights" in texts


def test_timm_s_layout_and_exports_come_with_networks_that_timm_has(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path / "plain")
    code, _, _ = run(
        capsys, path, f"hf://{NAME}", "--exports", "onnx", "stablehlo", "--license", "mit"
    )
    assert code == 0
    content = hub.repositories[NAME].branches["main"]
    assert set(content) == FILES | {".gitattributes", "model.onnx", "model.stablehlo"}
    config = json.loads(content["config.json"])
    assert config["architecture"] == "tiny_resnet"
    assert config["pretrained_cfg"]["input_size"] == [3, 16, 16]
    assert "date" not in config["resnet_jax"]
    assert b"library_name: timm" in content["README.md"]
    assert b"license: mit" in content["README.md"]
    assert b"the file `model.onnx` of this repository" in content["README.md"]
    session = onnxruntime.InferenceSession(content["model.onnx"])
    published = Classifier.from_pretrained(f"hf://{NAME}")
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(published(images), Classifier.load(path)(images))
    (probabilities,) = session.run(None, {"images": images})
    expected = published.probabilities(np.asarray(published.forward(images).logits))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)


def test_a_dry_run_changes_nothing(
    complete: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, out, _ = run(capsys, complete, NAME, "--dry-run", "--private")
    assert code == 0
    assert not hub.repositories
    assert {method for method, *_ in hub.requests} == {"GET"}
    assert f"hf://{NAME} does not exist yet and will be private; branch main" in out
    for name in FILES:
        assert f"new        {name}" in out
    assert "nothing was changed" in out


def test_what_others_have_put_there_is_kept(
    complete: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, complete, NAME)[0] == 0
    branch = hub.repositories[NAME].branches["main"]
    code, out, _ = run(capsys, complete, NAME)
    assert code == 0
    assert "has all of these files already" in out
    assert len(hub.repositories[NAME].commits["main"]) == 2

    branch["README.md"] = b"---\n---\n\n# By hand\n"
    branch["notes.txt"] = b"notes"
    code, out, err = run(capsys, complete, NAME)
    assert code == 2
    assert err == (
        f"error: {NAME} has README.md with another content; replace it with --overwrite, or give "
        "another name or --revision\n"
    )
    assert "unchanged  config.json" in out
    assert hub.repositories[NAME].branches["main"]["README.md"] == b"---\n---\n\n# By hand\n"

    assert run(capsys, complete, NAME, "--overwrite")[0] == 0
    branch = hub.repositories[NAME].branches["main"]
    assert b"# tiny_resnet" in branch["README.md"]
    assert branch["notes.txt"] == b"notes"


def test_a_commit_in_between_wins(files: Path, hub: Hub) -> None:
    upload(files)
    (files / "config.json").write_text('{"a": 1}')
    planned = plan(files, NAME)
    assert (planned.replaced, planned.new) == (("config.json",), ())
    hub.repositories[NAME].commits["main"].append("of somebody else")
    with pytest.raises(PushError, match=r"has changed the repository in the meantime.*; nothing"):
        push(planned, files, "Upload noise")
    assert hub.repositories[NAME].branches["main"]["config.json"] == b"{}"


def test_another_branch_is_created(files: Path, hub: Hub) -> None:
    upload(files)
    (files / "config.json").write_text('{"a": 1}')
    upload(files, branch="v2")
    repository = hub.repositories[NAME]
    assert repository.branches["main"]["config.json"] == b"{}"
    assert repository.branches["v2"]["config.json"] == b'{"a": 1}'
    assert len(repository.commits["v2"]) == 3


def test_a_new_repository_can_have_another_branch(files: Path, hub: Hub) -> None:
    upload(files, branch="draft", private=True)
    repository = hub.repositories[NAME]
    assert repository.private
    assert set(repository.branches["main"]) == {".gitattributes"}
    assert set(repository.branches["draft"]) >= FILES


@pytest.mark.usefixtures("hub")
def test_a_public_repository_is_not_taken_for_a_private_one(files: Path) -> None:
    upload(files)
    with pytest.raises(PushError, match="exists and is public; leave --private out"):
        plan(files, NAME, private=True)


def of(route: str, action: Callable[[], None]) -> Callable[[str], None]:
    """Return a function that acts before one route of the hub."""
    return lambda asked: action() if asked == route else None


def refuse(status: int, message: str = "") -> Callable[[], None]:
    def action() -> None:
        raise Refusal(status, message)

    return action


def hang_up() -> None:
    raise ConnectionResetError


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("route", "action", "message", "is_created"),
    [
        ("info", refuse(500), r"answers with an error \(.*500.*; nothing was changed", False),
        ("info", hang_up, r"the connection to the hub failed \(.*; nothing was changed", False),
        ("create", refuse(403), "may not write to ada's repositories; .*; nothing was up", False),
        ("create", refuse(409, "x"), r"an error \(.*409.*; nothing was uploaded$", False),
        ("preupload", hang_up, "connection to the hub failed .*; nothing was committed; the", True),
        ("preupload", refuse(401), "no such repository|does not accept the token", True),
        ("store", refuse(503), "answers with an error .*503.*; nothing was committed", True),
        ("store", hang_up, "connection to the hub failed .*; nothing was committed", True),
        ("validate", refuse(400), r"does not accept the files|answers with an error", True),
        ("commit", refuse(403), "the token may not write .*; nothing was committed$", True),
        ("commit", refuse(502), "an error .*502.*; it is not known whether the commit", True),
        ("commit", hang_up, "failed .*; it is not known whether the commit was made; the", True),
    ],
)
def test_a_failure_in_the_middle_is_explained_and_can_be_repeated(
    files: Path, hub: Hub, route: str, action: Callable[[], None], message: str, is_created: bool
) -> None:
    hub.before = of(route, action)
    hub.echo = True
    with pytest.raises(PushError, match=message) as raised:
        upload(files)
    text = str(raised.value)
    assert text.startswith(f"{NAME}: ")
    assert "\n" not in text
    assert TOKEN not in text
    assert raised.value.__context__ is None, "it would hold the request with the token"
    assert (NAME in hub.repositories) == is_created
    if is_created:
        assert set(hub.repositories[NAME].branches["main"]) == {".gitattributes"}
    hub.before = lambda _: None
    upload(files)
    assert set(hub.repositories[NAME].branches["main"]) >= FILES


def test_a_commit_whose_answer_is_lost_is_not_repeated(files: Path, hub: Hub) -> None:
    answer = hub.answer

    def lose(route: str, where: dict[str, str], body: bytes, token: str) -> Any:
        found = answer(route, where, body, token)
        if route == "commit":
            raise ConnectionResetError
        return found

    hub.answer = lose  # type: ignore[method-assign]
    with pytest.raises(PushError, match="it is not known whether the commit was made"):
        upload(files)
    again = plan(files, NAME)
    assert set(again.unchanged) == FILES
    assert not again.new + again.replaced


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_wrong", "the hub does not accept the token; log in again with `hf auth login`"),
        (READ_TOKEN, "the token may not write to ada's repositories"),
    ],
)
def test_a_wrong_token_is_named_as_the_cause(
    files: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PushError, match=message) as raised:
        upload(files)
    assert token not in str(raised.value)
    assert not hub.repositories


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("noise",), "'noise' is not of the form user/name"),
        (("a/b/c",), "a/b/c: "),
        (("ada/no spaces",), "ada/no spaces: "),
        ((NAME, "--exports", "tflite"), "invalid choice 'tflite'"),
    ],
)
def test_mistakes_are_answered_before_any_work(
    complete: Path, hub: Hub, argv: tuple[str, ...], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code, out, err = run(capsys, complete, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not hub.requests


def test_a_missing_token_is_noticed_before_any_work(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = run(capsys, tmp_path / "absent", NAME)
    assert code == 2
    assert "there is no token of the Hugging Face hub; log in with `hf auth login`" in err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "does not exist; give a run directory" in run(capsys, tmp_path / "absent", NAME)[2]
    assert not hub.requests


def test_the_token_is_in_no_log_and_no_command_line(files: Path, tmp_path: Path) -> None:
    """The environment variables work, and the library's debug log stays free of the token."""
    found = Hub()
    seen: list[bytes] = []

    def look(route: str) -> None:
        del route
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(file.read_bytes())
            except OSError:
                continue

    found.before = look
    code = (
        "import logging, sys\n"
        "logging.basicConfig(level=0)\n"
        "from pathlib import Path\n"
        "from huggingface_hub.utils import logging as hub_logging\n"
        "hub_logging.set_verbosity_debug()\n"
        "from resnet_jax.export.push import plan, push\n"
        "directory = Path(sys.argv[1])\n"
        "print(push(plan(directory, sys.argv[2]), directory, 'Upload'))\n"
    )
    with serve(found) as endpoint:
        process = subprocess.run(
            [sys.executable, "-c", code, str(files), NAME],
            env={
                **os.environ,
                "HF_ENDPOINT": endpoint,
                "HF_HOME": str(tmp_path),
                "HF_HUB_DISABLE_XET": "1",
                "HF_TOKEN": TOKEN,
                "HF_DEBUG": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(endpoint)
    assert "POST" in process.stderr, "the log is on"
    assert TOKEN not in process.stdout + process.stderr
    assert any(authorization == f"Bearer {TOKEN}" for *_, authorization in found.requests)
    assert any(b"-c" in line for line in seen)
    assert not any(TOKEN.encode() in line for line in seen)
    uploads = [authorization for _, route, authorization in found.requests if route == "store"]
    assert uploads == [""], "the storage needs no token"
