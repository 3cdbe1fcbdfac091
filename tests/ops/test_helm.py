"""The chart: what it takes, what it makes of that, and that Kubernetes' schemas and the daemon take the result."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from acclimate.runtime.config import load
from tests.ops.chart import CHART, Refused, case, manifests, rendered, values
from tests.ops.dockerfile import stages
from tests.ops.sandbox import UID
from tests.ops.test_docker import DOCKER

CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").iterdir())
KUBERNETES = ("1.27", "1.34")


def made(name: str, **more: Any) -> dict[str, dict[str, Any]]:
    """Objects of a case by kind and name."""
    found = manifests(values(case(name), more))
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["StatefulSet/cameras-acclimate"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", CASES)
def test_kubernetes_schemas_take_every_object(name: str, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate; pip install it")
    for document in made(name).values():
        if document["kind"] != "PodMonitor":
            validate.validate(document, version, strict=True)


def test_the_schemas_would_object() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate; pip install it")
    document = made("insecure")["StatefulSet/cameras-acclimate"]
    document["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(document, KUBERNETES[0], strict=True)


def test_everything_is_made_where_it_is_asked_for() -> None:
    kinds = {name.split("/")[0] for name in made("everything")}
    always = {"StatefulSet", "Service", "ConfigMap", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"}
    assert kinds == always | {"PodMonitor", "HorizontalPodAutoscaler"}
    assert {name.split("/")[0] for name in made("insecure")} == always
    assert "keep to that replica's name" in rendered(values(case("insecure")))["NOTES.txt"]


@pytest.mark.parametrize("name", CASES)
def test_names_and_selectors_meet(name: str) -> None:
    objects = made(name)
    workload = objects["StatefulSet/cameras-acclimate"]["spec"]
    labels = workload["template"]["metadata"]["labels"]
    assert f"Service/{workload['serviceName']}" in objects
    selectors = [workload["selector"]["matchLabels"]]
    for document in objects.values():
        spec = document.get("spec", {})
        if found := spec.get("selector") or spec.get("podSelector"):
            selectors.append(found.get("matchLabels", found))
    assert len(selectors) >= 5
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert f"ServiceAccount/{pod(objects)['serviceAccountName']}" in objects
    volumes = {volume["name"] for volume in pod(objects)["volumes"]}
    claims = {claim["metadata"]["name"] for claim in workload["volumeClaimTemplates"]}
    assert {mount["name"] for mount in pod(objects)["containers"][0]["volumeMounts"]} == volumes | claims


@pytest.mark.parametrize("name", CASES)
def test_a_pod_is_unprivileged_and_read_only_but_for_the_store(name: str) -> None:
    spec = pod(made(name))
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsUser"] == UID
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == [
        "/var/lib/acclimate"
    ]


@pytest.mark.parametrize("name", CASES)
def test_the_daemon_takes_the_configuration(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = made(name)
    text = objects["ConfigMap/cameras-acclimate"]["data"]["acclimate.toml"]
    assert tomllib.loads(text) == values(case(name))["config"]
    (tmp_path / "acclimate.toml").write_text(text, encoding="utf-8")
    for entry in pod(objects)["containers"][0]["env"]:
        monkeypatch.setenv(entry["name"], entry["value"])
    config = load(tmp_path / "acclimate.toml")
    assert config.server.host == "0.0.0.0"  # noqa: S104 - within a pod
    assert config.store.path == "/var/lib/acclimate/sessions.db"
    assert bool(config.security.tls_certificate) == (name == "everything")
    assert config.security.insecure == (name == "insecure")


def test_probes_use_tls_where_the_daemon_does() -> None:
    plain, secured = pod(made("insecure"))["containers"][0], pod(made("everything"))["containers"][0]
    assert plain["readinessProbe"]["grpc"] == {"port": 8001}
    assert plain["livenessProbe"]["httpGet"]["scheme"] == "HTTP"
    assert secured["readinessProbe"]["exec"]["command"][:2] == ["acclimate", "health"]
    assert secured["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert secured["args"] == ["serve", "--config", "/etc/acclimate/config/acclimate.toml"]
    _, image = stages(DOCKER / "Dockerfile")
    assert any(step.name == "ENTRYPOINT" and step.rest == '["acclimate"]' for step in image)


def test_replicas_that_hold_sessions_are_not_scaled_away() -> None:
    objects = made("everything")
    assert "replicas" not in objects["StatefulSet/cameras-acclimate"]["spec"], "the autoscaler decides"
    scaler = objects["HorizontalPodAutoscaler/cameras-acclimate"]["spec"]
    assert scaler["minReplicas"] >= 1
    assert scaler["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}
    assert scaler["metrics"][0]["pods"]["metric"]["name"].startswith("acclimate_queue_duration_seconds")
    kept = objects["StatefulSet/cameras-acclimate"]["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert set(kept.values()) == {"Retain"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": 0}, "replicas"),
        ({"store": {"size": "plenty"}}, "store.size"),
        ({"config": {"server": {"host": "0.0.0.0"}}}, "config"),  # noqa: S104 - refused
        ({"insecure": False}, "tls.secretName is empty"),
        ({"bundles": {"volume": None}}, "bundles.volume"),
        ({"tls": {"secretName": "pair"}}, "tls.serverName is empty"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=named):
        manifests(values(case("insecure"), given))


def test_nothing_said_is_refused_with_what_to_say() -> None:
    with pytest.raises(Refused, match=r"bundles\.volume is empty"):
        manifests(values())


def test_every_value_is_used_and_described() -> None:
    used = "".join(path.read_text("utf-8") for path in (CHART / "templates").iterdir())
    for name, value in yaml.safe_load((CHART / "values.yaml").read_text("utf-8")).items():
        inner = [f".Values.{name}.{key}" for key in value] if isinstance(value, dict) and value else [f".Values.{name}"]
        whole = f".Values.{name} " in used or f".Values.{name}}}" in used
        assert whole or all(reference in used for reference in inner), name
