"""The scripts in `launch/` are well formed, and use options that `train.py` accepts."""

import re
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from resnet_jax.commands.train import parse
from resnet_jax.training.process.preemption import EXIT_CODE

ROOT = Path(__file__).parent.parent
JOBSET = ROOT / "launch" / "jobset.yaml"
# The first version of Kubernetes in which podFailurePolicy is stable.
VERSION = "1.31.0"


@pytest.mark.parametrize(
    "script", ["launch/slurm.sbatch", "launch/cloud_tpu.sh", "benchmarks/gpu.sh", ".ci/run"]
)
def test_shell_scripts_pass_shellcheck(script: str) -> None:
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    found = subprocess.run(
        [shellcheck, "--shell=bash", ROOT / script], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


def documents() -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(JOBSET.read_text())}


def job() -> dict[str, Any]:
    (replicated,) = documents()["JobSet"]["spec"]["replicatedJobs"]
    return replicated["template"]


def test_kubernetes_accepts_what_is_its_own() -> None:
    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        kubernetes_validate.validate(documents()[kind], VERSION, strict=True)
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}, **job()}
    kubernetes_validate.validate(whole, VERSION, strict=True)
    del whole["spec"]["template"]["spec"]["containers"][0]["name"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(whole, VERSION, strict=True)


def test_the_jobset_has_the_fields_of_its_interface() -> None:
    """Compare with jobset.x-k8s.io/v1alpha2, whose schema is not part of Kubernetes."""
    jobset = documents()["JobSet"]
    assert jobset.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    spec = jobset["spec"]
    assert spec.keys() <= {
        "coordinator",
        "failurePolicy",
        "network",
        "replicatedJobs",
        "startupPolicy",
        "successPolicy",
        "suspend",
        "ttlSecondsAfterFinished",
    }
    assert spec["network"].keys() <= {
        "enableDNSHostnames",
        "publishNotReadyAddresses",
        "subdomain",
    }
    # JAX looks for process 0 under the name of the JobSet.
    assert "subdomain" not in spec["network"]
    for replicated in spec["replicatedJobs"]:
        assert replicated.keys() <= {"dependsOn", "groupName", "name", "replicas", "template"}
        assert replicated["template"].keys() <= {"metadata", "spec"}
    for rule in spec["failurePolicy"]["rules"]:
        assert rule.keys() <= {"action", "name", "onJobFailureReasons", "targetReplicatedJobs"}
        assert rule["action"] in {
            "FailJobSet",
            "RestartJobSet",
            "RestartJobSetAndIgnoreMaxRestarts",
        }
        assert set(rule["onJobFailureReasons"]) <= {
            "BackoffLimitExceeded",
            "DeadlineExceeded",
            "FailedIndexes",
            "MaxFailedIndexesExceeded",
            "PodFailurePolicy",
        }


def test_jax_finds_the_processes_of_the_jobset() -> None:
    spec = job()["spec"]
    # From these JAX takes the number of each process and how many there are.
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    account = documents()["ServiceAccount"]["metadata"]["name"]
    assert spec["template"]["spec"]["serviceAccountName"] == account
    assert documents()["RoleBinding"]["subjects"] == [{"kind": "ServiceAccount", "name": account}]
    assert documents()["RoleBinding"]["roleRef"]["name"] == documents()["Role"]["metadata"]["name"]


def test_preemption_leads_to_another_try() -> None:
    script = (ROOT / "launch" / "slurm.sbatch").read_text()
    assert f'"$code" -eq {EXIT_CODE}' in script
    rule = job()["spec"]["podFailurePolicy"]["rules"][0]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"operator": "In", "values": [EXIT_CODE]},
    }
    assert documents()["JobSet"]["spec"]["failurePolicy"]["rules"][0]["onJobFailureReasons"] == [
        "PodFailurePolicy"
    ]


def commands() -> dict[str, list[str]]:
    """Return the arguments of ``train.py`` in each file."""
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    found = {"jobset.yaml": container["command"][2:]}
    for name, end in (("slurm.sbatch", r" \|\|"), ("cloud_tpu.sh", '"; do')):
        text = (ROOT / "launch" / name).read_text().replace("\\\n", "")
        match = re.search(rf"python train\.py (.*?){end}", text)
        assert match is not None
        found[name] = shlex.split(match[1])
    return found


@pytest.mark.parametrize("name", commands())
def test_the_options_are_those_of_train(name: str) -> None:
    experiment, arguments = parse(commands()[name])
    assert experiment == "imagenet-resnet50"
    assert arguments.distributed.auto
