"""The container files keep their promises, as far as reading them can tell; scripts/docker_test.sh runs them."""

import json
import os
import re
import runpy
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from service.app import STOP_S
from service.settings import read_settings

ROOT = Path(__file__).parents[2]
FILES = (
    "Dockerfile",
    "deploy/kubernetes/bundle.Dockerfile",
    "deploy/nginx/Dockerfile",
    "deploy/observability/Dockerfile",
    "docker-compose.yml",
    "docker-compose.gpu.yml",
    ".env.example",
    "scripts/docker_test.sh",
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def stages() -> dict[str, list[str]]:
    """Instructions of the Dockerfile by stage, continued lines joined and comments left out."""
    lines = re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found: dict[str, list[str]] = {}
    name = ""
    for line in filter(str.strip, lines):
        if match := re.match(r"FROM \S+ AS (\S+)", line):
            name = match[1]
        found.setdefault(name, []).append(line.strip())
    return found


def compose(name: str = "docker-compose.yml") -> dict:
    """The services of a compose file, with its defaults for variables that are not set."""
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text(name)))["services"]


@pytest.mark.parametrize("image", ["service", "training", "ray"])
def test_an_image_ends_as_a_user_that_is_not_root(image):
    assert [line for line in stages()[image] if line.startswith("USER")] == ["USER 10001:10001"]


def test_nothing_is_added_from_the_network_but_by_pip():
    instructions = [line for stage in stages().values() for line in stage]
    assert not [line for line in instructions if line.startswith("ADD")]
    for name in FILES:
        assert not re.search(r"https?://|\bcurl [^|]*\| *(ba)?sh", text(name)), name


def test_every_install_uses_the_constraints():
    installs = [part for lines in stages().values() for line in lines for part in line.split("&&") if "pip" in part]
    installs = [part for part in installs if "pip install" in part]
    assert len(installs) == 7
    assert all("--constraint" in part and "constraints.txt" in part for part in installs)


def test_torch_is_installed_first_and_alone():
    first = next(line for line in stages()["torch"] if "pip install" in line)
    assert first.split()[-1] == "torch"


def test_the_image_that_serves_refuses_the_training_dependencies():
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    [check] = [line for line in stages()["service-packages"] if "find_spec" in line]
    checked = set(re.findall(r"'(\w+)'", check.partition("filter(")[2]))
    small = {"threadpoolctl", "rich", "tomli-w"}  # pure Python, and rich comes with typer
    training = {re.split(r"[><=]", requirement)[0] for requirement in extras["training"]} - small
    assert {name.replace("scikit-learn", "sklearn") for name in training} == checked
    [install] = [line for line in stages()["service-packages"] if "'.[" in line]
    assert "'.[service]'" in install


def test_the_build_sees_only_what_is_listed():
    rules = [line for line in text(".dockerignore").splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert not {"tests", "data", "runs", "bundles", "docs", ".git"} & {rule.lstrip("!") for rule in rules[1:]}


class Ready(BaseHTTPRequestHandler):
    """Answers `/ready` as a service that is not ready until told."""

    status = 503

    def do_GET(self):
        self.send_response(self.status if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_the_health_check_follows_ready_on_the_port_that_is_set():
    [line] = [line for line in stages()["service"] if line.startswith("HEALTHCHECK")]
    [interpreter, *arguments] = json.loads(line.partition(" CMD ")[2])
    assert interpreter == "python"
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {**os.environ, "GENREC_PORT": str(server.server_port)}
        for status, code in ((503, 1), (200, 0)):
            Ready.status = status
            done = subprocess.run([sys.executable, *arguments], env=environment, check=False)
            assert done.returncode == code
        server.shutdown()


def test_only_what_answers_is_published_and_on_loopback_only():
    ports = {name: service.get("ports", []) for name, service in compose().items()}
    published = {"nginx": "8000:8080", "prometheus": "9090:9090", "grafana": "3000:3000", "ray-head": "8100:8000"}
    assert {name: one for name, one in ports.items() if one} == {
        name: [f"127.0.0.1:{port}"] for name, port in published.items()
    }


def test_nothing_but_the_service_its_bundle_and_nginx_starts_unless_it_is_asked_for():
    asked_for = {"prometheus": ["observability"], "grafana": ["grafana"]}
    asked_for |= {name: ["ray"] for name in ("ray-token", "ray-head", "ray-worker")}
    profiles = {name: service.get("profiles") for name, service in compose().items()}
    assert profiles == {"train": None, "service": None, "nginx": None, **asked_for}
    pulled = [name for name, service in compose().items() if "build" not in service]
    assert pulled == ["grafana"]  # an image that is not built here may be out of reach


@pytest.mark.parametrize(
    ("file", "user"), [("deploy/observability/Dockerfile", "prometheus"), ("deploy/nginx/Dockerfile", "10001:10001")]
)
def test_an_image_of_debians_packages_ends_as_a_user_that_is_not_root(file, user):
    lines = [line for line in text(file).splitlines() if line.startswith("USER")]
    assert lines == [f"USER {user}"]


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_the_service_starts_with_the_settings_of_the_file(file, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GENREC_")]:
        monkeypatch.delenv(name)
    for services in (compose(), compose(file)):
        for name, value in services["service"]["environment"].items():
            monkeypatch.setenv(name, str(value or ""))
    settings = read_settings({})
    assert (settings.host, settings.auth, settings.port) == ("0.0.0.0", "open", 8000)


def test_the_train_step_sets_no_setting_of_the_service():
    environment = compose()["train"]["environment"]
    assert not [name for name in environment if name.startswith("GENREC_")]
    assert "ENV GENREC_CACHE_DIR=/genrec/cache" in stages()["training"]


BUILT = ["train", "service", "nginx", "prometheus", "ray-token", "ray-head", "ray-worker"]


@pytest.mark.parametrize("name", BUILT)
def test_a_container_can_write_its_volumes_and_tmp_alone(name):
    service = compose()[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == "/tmp"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True  # without it, PID 1 ignores a SIGTERM that it has no handler for yet


def test_the_grace_period_is_longer_than_the_drain(monkeypatch):
    grace_s = {name: int(compose()[name]["stop_grace_period"].removesuffix("s")) for name in ("service", "nginx")}
    monkeypatch.setenv("GENREC_BUNDLE", "bundles/demo")
    settings = read_settings({})
    drain_s = (settings.drain_delay_ms + settings.drain_timeout_ms) / 1e3 + STOP_S
    assert grace_s["service"] > drain_s
    assert grace_s["nginx"] >= grace_s["service"]  # what it waits for
    assert "\nSTOPSIGNAL SIGQUIT\n" in text("deploy/nginx/Dockerfile")  # at SIGTERM it would not wait


def test_what_asks_the_replicas_follows_their_port():
    port = compose()["service"]["environment"]["GENREC_PORT"]
    for name, file, default in (
        ("nginx", "deploy/nginx/Dockerfile", "ENV TARGET=service:8000"),
        ("prometheus", "deploy/observability/Dockerfile", "ENV TARGET_PORT=8000"),
    ):
        [(variable, value)] = compose()[name]["environment"].items()
        assert default in text(file).splitlines()
        assert default == f"ENV {variable}={value}"
        assert str(value).endswith(str(port))


def test_a_node_of_a_cluster_lets_in_nobody_without_its_token():
    nodes = {name: compose()[name] for name in ("ray-head", "ray-worker")}
    [variables] = [line for line in stages()["ray"] if line.startswith("ENV")]
    assert {"RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH=/genrec/token/ray"} <= set(variables.split())
    for node in nodes.values():
        assert "ray-token:/genrec/token:ro" in node["volumes"]
        assert "ray-token" in node["depends_on"]
    holders = [name for name, service in compose().items() if "ray-token" in str(service.get("volumes"))]
    assert holders == ["ray-token", *nodes]
    assert "--dashboard-host 127.0.0.1" in nodes["ray-head"]["command"]


def test_nodes_of_a_cluster_see_the_same_directories(monkeypatch):
    head, worker = (compose()[name] for name in ("ray-head", "ray-worker"))
    assert head["volumes"] == worker["volumes"]
    assert "scores:/genrec/scores" in head["volumes"]
    for name, value in head["environment"].items():
        monkeypatch.setenv(name, str(value))
    settings = read_settings({})
    assert (settings.auth, settings.host) == ("open", "0.0.0.0")
    assert f"--num-cpus {settings.threads} " in head["command"]  # so that a node has room for a replica


def test_the_gpu_file_reserves_it_for_both_steps():
    for service in compose("docker-compose.gpu.yml").values():
        [device] = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert set(compose("docker-compose.gpu.yml")) == {"train", "service"}


def test_every_variable_of_the_compose_files_is_in_the_example():
    files = text("docker-compose.yml") + text("docker-compose.gpu.yml")
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", files))
    assert dict(re.findall(r"^#(\w+)=(.*)$", text(".env.example"), re.MULTILINE)) == defaults
    assert not [name for name in defaults if name.startswith("GENREC_")]  # the service refuses names it does not know


def test_the_recipe_that_docker_test_makes_of_own_data_can_be_made() -> None:
    script = runpy.run_path(str(ROOT / "scripts/foreign_data.py"))
    made = script["edited"](text("training/recipes/own-data.toml"))
    assert tomllib.loads(made)["evaluate"]["num_users"] == 50
