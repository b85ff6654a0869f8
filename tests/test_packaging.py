"""What a user installs: the wheel and the source distribution, outside this clone."""

import ast
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest

import resnet_jax
from resnet_jax.commands.extras import DISTRIBUTION, EXTRAS
from resnet_jax.config import list_experiments

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a wheel and a source distribution."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
        cwd=out,
    )
    return out


class Installed:
    """The wheel in an environment of its own, which borrows the dependencies of this one."""

    def __init__(self, root: Path, wheel: Path) -> None:
        venv.create(root / "env", with_pip=False)
        self.scripts = root / "env" / "bin"
        self.directory = root / "work"
        self.directory.mkdir()
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = root / "env" / "lib" / version / "site-packages"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--python", self.scripts / "python"),
                *("install", "-q", "--no-deps", wheel),
            ],
            check=True,
            capture_output=True,
        )
        # As a plain path, so that the editable installation there is not set up.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    def run(self, *command: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, as if some modules were not installed."""
        hidden = self.directory / "hidden"
        hidden.mkdir(exist_ok=True)
        for path in hidden.iterdir():
            path.unlink()
        for module in without:
            (hidden / f"{module}.py").write_text(
                f"raise ModuleNotFoundError({module!r}, name={module!r})\n"
            )
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        }
        return subprocess.run(
            [self.scripts / command[0], *command[1:]],
            cwd=self.directory,
            env={**environment, "PYTHONPATH": str(hidden), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    (wheel,) = distributions.glob("*.whl")
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_the_wheel_is_what_is_imported(installed: Installed) -> None:
    process = installed.run("python", "-c", "import resnet_jax; print(resnet_jax.__file__)")
    assert process.stdout.startswith(str(installed.scripts.parent)), process.stderr


def test_the_wheel_trains(installed: Installed) -> None:
    process = installed.run(
        "resnet-jax",
        *("train", "--epochs=0.14", "--data.image-size=8", "--schedule.warmup-epochs=0"),
        "--log-every-steps=1",
        "--workdir=run",
    )
    assert process.returncode == 0, process.stderr
    assert "Training cifar_resnet20 on scikit-learn digits" in process.stdout
    assert "269,434 parameters" in process.stdout
    assert "step 3/3  test: loss " in process.stdout
    result = json.loads((installed.directory / "run" / "result.json").read_text())
    assert 0 <= result["top1"] <= 1
    assert (installed.directory / "run" / "report.html").exists()


def test_the_wheel_has_the_experiments_and_nothing_at_the_top_level(installed: Installed) -> None:
    listed = installed.run("resnet-jax", "train", "--list").stdout
    assert all(name in listed for name in list_experiments())
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('configs', 'tests')])"
    process = installed.run("python", "-c", code)
    assert process.stdout == "[None, None]\n", process.stderr


def test_a_plain_installation_answers_what_it_can(installed: Installed) -> None:
    # Flax brings optax and orbax.
    missing = tuple(
        module
        for modules in EXTRAS.values()
        for module in modules
        if module not in ("optax", "orbax")
    )
    for arguments, answer in (
        (["--help"], "resnet-jax COMMAND"),
        (["--version"], f"resnet-jax {resnet_jax.__version__}\n"),
        (["train", "--help"], "--optimizer.learning-rate"),
        (["data", "describe", "--help"], "SOURCE"),
        (["models", "resnet50"], "25,557,032"),
        (["weights", "resnet50.tv_in1k"], "76.16"),
    ):
        process = installed.run("resnet-jax", *arguments, without=missing)
        assert process.returncode == 0, process.stderr
        assert answer in process.stdout
    for arguments, extra in (
        (["train", "--epochs=0.1"], "train"),
        (["data", "describe", "."], "data"),
        (["serve", "runs/photos"], "serve"),
    ):
        process = installed.run("resnet-jax", *arguments, without=missing)
        assert process.returncode == 2, process.stdout
        assert process.stderr.startswith("error: this needs ")
        assert process.stderr.endswith(f"pip install '{DISTRIBUTION}[{extra}]'\n")
        assert process.stderr.count("\n") == 1


def test_the_source_distribution_has_the_tests_and_the_experiments(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files", "tests", "configs", "resnet_jax", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {"tests/conftest.py", "configs/digits_resnet20.py"} <= set(tracked)
    missing = [name for name in tracked if (ROOT / name).exists() and name not in names]
    assert not missing


def test_messages_name_the_distribution_and_its_extras() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert EXTRAS.keys() <= PROJECT["optional-dependencies"].keys()


def test_the_version_is_stated_once() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {resnet_jax.__version__}\n" in citation


def test_every_module_that_the_library_imports_is_a_dependency() -> None:
    imported = set()
    for path in (ROOT / "resnet_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    core = {"flax", "jax", "numpy", "PIL", "resnet_jax", "rich", "tyro"}
    # Flax requires msgpack, Jinja requires MarkupSafe, and Orbax requires absl.
    core |= {"absl", "markupsafe", "msgpack"}
    optional = {module for modules in EXTRAS.values() for module in modules}
    assert imported - set(sys.stdlib_module_names) <= core | optional
