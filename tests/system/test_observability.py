"""A real Prometheus beside a real service: it is scraped, the rules are evaluated, one of them fires."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.client import Client
from tests.system.server import started

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]
FILES = Path(__file__).parents[2] / "deploy/observability"


@contextmanager
def prometheus(target: str, directory: Path, port: int) -> Iterator[httpx.Client]:
    """Prometheus with our rules and configuration, but sooner, and with files of its own."""
    config = yaml.safe_load((FILES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    rules = yaml.safe_load((FILES / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule.pop("for", None)
    (directory / "alerts.yml").write_text(yaml.safe_dump(rules))
    config["rule_files"] = [str(directory / "alerts.yml")]
    config["scrape_configs"][0].pop("dns_sd_configs")  # its name is known to Docker alone
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=5) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def eventually(ask: Callable[[], Any], within_s: float = 30.0) -> Any:
    deadline = time.monotonic() + within_s
    while True:
        try:
            if found := ask():
                return found
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_prometheus_reads_the_service_and_tells_when_it_is_gone(causal_bundle_path, tmp_path):
    with (
        started(causal_bundle_path, log=tmp_path / "service.log") as server,
        Client(server.url) as client,
        prometheus(server.url.partition("//")[2], tmp_path, free_port()) as told,
    ):

        def value(query: str) -> float | None:
            found = told.get("/query", params={"query": query}).json()["data"]["result"]
            return float(found[0]["value"][1]) if found else None

        def firing() -> set[str]:
            alerts = told.get("/alerts").json()["data"]["alerts"]
            return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

        def health() -> set[str]:
            [group] = told.get("/rules").json()["data"]["groups"]
            return {rule["health"] for rule in group["rules"]}

        client.recommend(["i1"])
        eventually(lambda: value('genrec_requests_total{endpoint="/v1/recommend", status="200"}') == 1)
        assert value("genrec_ready") == 1
        assert value("genrec_batch_size_count") == 1
        eventually(lambda: health() == {"ok"})  # not err, and no longer unknown
        eventually(lambda: firing() == set())  # until the first scrape was evaluated, GenrecGone may fire
        server.process.kill()
        eventually(lambda: firing() == {"GenrecDown"})
