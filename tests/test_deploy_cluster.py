"""The files for a cluster: sound, and in step with each other and the program."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from bot.settings import Settings, names
from engine.ray_worker import FOLDER, MODELS

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.cluster.yaml"
TOOLS = Path(sys.executable).parent
RAY_CLUSTER = ROOT / "tests" / "raycluster.schema.json"
KUBERNETES = "1.37"


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text()))


def ray_cluster() -> dict[str, Any]:
    [found] = [each for each in documents() if each["kind"] == "RayCluster"]
    return found


def cluster() -> dict[str, Any]:
    spec: dict[str, Any] = ray_cluster()["spec"]
    return spec


def pods() -> Iterator[dict[str, Any]]:
    spec = cluster()
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield group["template"]["spec"]


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_the_compose_file_is_of_the_published_schema() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    checked = subprocess.run(
        [TOOLS / "check-jsonschema", *schema, COMPOSE], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_there_are_a_head_with_the_bot_and_two_workers_that_find_it() -> None:
    found = services()
    assert sorted(found) == ["head", "worker-1", "worker-2"]
    assert found["head"]["environment"]["RAY_ADDRESS"] == "head:6379"
    for name in ("worker-1", "worker-2"):
        assert "--address=head:6379" in found[name]["entrypoint"]
        assert {FOLDER, MODELS} <= set(found[name]["environment"])


def test_who_is_in_the_cluster_needs_the_token() -> None:
    for service in services().values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_TOKEN:?" in service["environment"]["RAY_AUTH_TOKEN"]
    for pod in pods():
        for container in pod["containers"]:
            variables = {each["name"]: each for each in container["env"]}
            assert variables["RAY_AUTH_MODE"]["value"] == "token"
            assert "RAY_AUTH_TOKEN" in variables or container["envFrom"]


def test_every_setting_in_them_is_one_and_its_value_is_allowed() -> None:
    known = {name: field for field, name in names().items()}
    head = services()["head"]["environment"]
    [bot] = [each for pod in pods() for each in pod["containers"] if each["name"] == "bot"]
    in_pod = {each["name"]: each["value"] for each in bot["env"]}
    for environment in (head, in_pod):
        ours = {name: value for name, value in environment.items() if name in known}
        assert {"EXECUTOR", "RAY_ADDRESS"} <= set(ours)
        Settings.load(Path("none"), ours)


def test_nobody_sends_statistics_to_rays_makers() -> None:
    for service in services().values():
        assert service["environment"]["RAY_USAGE_STATS_ENABLED"] == "0"
    for pod in pods():
        for container in pod["containers"]:
            values = {each["name"]: each.get("value") for each in container["env"]}
            assert values["RAY_USAGE_STATS_ENABLED"] == "0"


def validate_ray_cluster(document: dict[str, Any]) -> None:
    """Raises where KubeRay, or Kubernetes for the pods in it, would refuse a document."""
    Draft202012Validator(json.loads(RAY_CLUSTER.read_text())).validate(document)
    spec = document["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pods = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        kubernetes_validate.validate(pods, KUBERNETES, strict=True)


def test_the_manifest_is_of_the_schemas_that_kuberay_and_kubernetes_publish() -> None:
    validate_ray_cluster(ray_cluster())
    for document in documents():
        if document["apiVersion"] == "v1":
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("headGroupSpec.rayStartParams.num-cpus", 0),
        ("headGroupSpec.replicas", 1),
        ("workerGroupSpecs.0.maxReplicas", "8"),
        ("workerGroupSpecs.0.groupName", None),
        ("workerGroupSpecs.0.template.spec.containers.0.volumemounts", []),
        ("workerGroupSpecs.0.template.spec.containers.0.name", None),
        ("headGroupSpec.template.spec.securityContext.runAsUser", "root"),
        ("headGroupSpec.template.spec.volumes.0.emptyDir.sizeLimit", ["1Gi"]),
        ("autoscalerOptions.idleTimeoutSeconds", "5m"),
        ("autoscaling", True),
    ],
)
def test_a_manifest_that_kuberay_would_refuse_is_refused_here(path: str, value: object) -> None:
    document = ray_cluster()
    *way, last = path.split(".")
    at: Any = document["spec"]
    for step in way:
        at = at[int(step) if step.isdigit() else step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    with pytest.raises(ValidationError):
        validate_ray_cluster(document)


def test_there_are_as_many_workers_as_the_bot_counts_on() -> None:
    [group] = cluster()["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    [bot] = [each for pod in pods() for each in pod["containers"] if each["name"] == "bot"]
    [told] = [each["value"] for each in bot["env"] if each["name"] == "RAY_WORKERS"]
    assert told == f"{group['minReplicas']}-{group['maxReplicas']}"


def test_rays_folder_is_the_volume_that_the_autoscaler_beside_the_head_is_given() -> None:
    # KubeRay mounts a volume of this name there, and makes it where there is none.
    head = cluster()["headGroupSpec"]["template"]["spec"]
    for container in head["containers"]:
        assert {"name": "ray-logs", "mountPath": "/tmp/ray"} in container["volumeMounts"]


def test_what_is_mounted_is_a_volume_and_what_is_claimed_is_there() -> None:
    claims = {each["metadata"]["name"] for each in documents() if "Claim" in each["kind"]}
    for pod in pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
            assert any(mount["mountPath"] == "/dev/shm" for mount in container["volumeMounts"])
        claimed = [volume.get("persistentVolumeClaim") for volume in volumes.values()]
        assert {claim["claimName"] for claim in claimed if claim} <= claims


def test_rays_version_is_the_one_that_is_installed() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    assert re.findall(r"^ray==(.*)$", pins, re.MULTILINE) == [cluster()["rayVersion"]]


@pytest.mark.parametrize("text", ["--num-cpus=0", "--num-gpus=0", "--include-dashboard=false"])
def test_the_head_draws_nothing_and_shows_no_dashboard(text: str) -> None:
    assert text in services()["head"]["command"][0]
