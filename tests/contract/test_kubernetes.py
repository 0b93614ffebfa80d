"""The manifest for Kubernetes fits the service: parsed and held against the code, for want of a cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.app import STOP_S
from service.settings import PREFIX, read_settings

ROOT = Path(__file__).parents[2]
KINDS = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy/kubernetes/genrec.yaml").read_text())}
POD: dict[str, Any] = KINDS["Deployment"]["spec"]["template"]
SPEC: dict[str, Any] = POD["spec"]
[SERVICE] = SPEC["containers"]
[BUNDLE] = SPEC["initContainers"]


@pytest.fixture
def settings(monkeypatch):
    """As the container would read them."""
    for one in SERVICE["env"]:
        monkeypatch.setenv(one["name"], one["value"])
    return read_settings({})


def test_the_service_starts_with_its_settings_and_asks_for_keys(settings):
    assert all(one["name"].startswith(PREFIX) for one in SERVICE["env"])
    assert settings.host == "0.0.0.0"
    assert settings.auth != "open"
    keys = [mount["mountPath"] for mount in SERVICE["volumeMounts"] if mount["name"] == "keys"]
    assert keys == [str(settings.api_keys_file.parent)] == [str(settings.metrics_token_file.parent)]


def test_no_variable_of_kubernetes_is_taken_for_a_setting():
    # A Service called genrec would have GENREC_PORT=tcp://… set, beside names that the service refuses.
    assert PREFIX.startswith(KINDS["Service"]["metadata"]["name"].upper())
    assert SPEC["enableServiceLinks"] is False


def test_it_is_asked_on_its_own_port_whether_it_lives_and_is_ready(settings):
    [port] = SERVICE["ports"]
    assert port["containerPort"] == settings.port
    assert KINDS["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    paths = {name: SERVICE[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {name: probe["path"] for name, probe in paths.items()} == {
        "startupProbe": "/ready",
        "readinessProbe": "/ready",
        "livenessProbe": "/health",
    }
    assert {probe["port"] for probe in paths.values()} == {port["name"]}
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(settings.port)


def test_a_replica_has_time_to_finish(settings):
    grace_s = SPEC["terminationGracePeriodSeconds"]
    assert grace_s > (settings.drain_delay_ms + settings.drain_timeout_ms) / 1e3 + STOP_S
    ready = SERVICE["readinessProbe"]
    seen_s = ready["failureThreshold"] * (ready["periodSeconds"] + ready["timeoutSeconds"])
    assert settings.drain_delay_ms / 1e3 > seen_s
    assert "lifecycle" not in SERVICE


def test_the_bundle_is_where_the_service_looks_for_it(settings):
    assert BUNDLE["command"] == ["cp", "-R", "/bundle/.", f"{settings.bundle}/"]
    assert "COPY . /bundle\n" in (ROOT / "deploy/kubernetes/bundle.Dockerfile").read_text()
    [there] = [mount for mount in BUNDLE["volumeMounts"] if mount["name"] == "bundle"]
    [here] = [mount for mount in SERVICE["volumeMounts"] if mount["name"] == "bundle"]
    assert there["mountPath"] == here["mountPath"] == str(settings.bundle)
    assert here["readOnly"] is True


def test_it_runs_as_the_user_of_the_images_and_may_do_nothing_else():
    who = SPEC["securityContext"]
    assert (who["runAsNonRoot"], who["runAsUser"], who["runAsGroup"]) == (True, 10001, 10001)
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text()
    assert who["seccompProfile"] == {"type": "RuntimeDefault"}
    assert SPEC["automountServiceAccountToken"] is False
    for container in (SERVICE, BUNDLE):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}


def test_every_volume_is_mounted_and_every_mount_has_its_volume():
    volumes = {volume["name"] for volume in SPEC["volumes"]}
    mounts = {mount["name"] for container in (SERVICE, BUNDLE) for mount in container["volumeMounts"]}
    assert volumes == mounts
    assert "/tmp" in {mount["mountPath"] for mount in SERVICE["volumeMounts"]}


def test_labels_find_the_pods():
    labels = POD["metadata"]["labels"]
    assert KINDS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert KINDS["Service"]["spec"]["selector"] == labels
    assert KINDS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
