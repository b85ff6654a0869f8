"""The example for Kubernetes is valid, and agrees with the command."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from resnet_jax.commands.arguments import parse_options
from resnet_jax.commands.serve import TOKEN_VARIABLE, Arguments
from tests.test_launch import VERSION

FILE = Path(__file__).parents[2] / "launch" / "serve.yaml"


def documents() -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(FILE.read_text())}


def test_kubernetes_accepts_it() -> None:
    found = documents()
    assert set(found) == {"Deployment", "Service"}
    for document in found.values():
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_it_agrees_with_the_command() -> None:
    pod = documents()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][:2] == ["resnet-jax", "serve"]
    arguments = parse_options(Arguments, container["args"][2:], prog="")
    assert arguments.host == "0.0.0.0"
    assert container["ports"][0]["containerPort"] == arguments.port
    assert container["env"][0]["name"] == TOKEN_VARIABLE
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > 2 * arguments.timeout + 5 + pause
