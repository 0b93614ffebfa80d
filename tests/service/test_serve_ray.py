"""`genrec serve --ray` around the rollout: what is imported, what is refused first, and what signals do."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genrec.commands import main
from genrec.errors import EngineError, InputError, Stopped
from service import serve_ray
from service.listeners import port_of
from service.ray_cluster import RayCluster
from service.ray_deployment import Replicas
from service.serve_ray import serve_on_ray
from service.settings import Settings, given_settings


@pytest.fixture(autouse=True)
def one_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_ray, "configure_logs", lambda *_: None)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENREC_{name.upper()}", raising=False)


@pytest.fixture
def rollouts(monkeypatch: pytest.MonkeyPatch) -> list[serve_ray.Rollout]:
    """What would have been rolled out, on a cluster that anyone may join."""
    made: list[serve_ray.Rollout] = []

    @contextmanager
    def joined(address: str, *_: object, **__: object) -> Iterator[RayCluster]:
        yield RayCluster(address)

    def run(rollout: serve_ray.Rollout) -> Settings:
        made.append(rollout)
        return rollout.settings

    monkeypatch.setattr(serve_ray, "joined", joined)
    monkeypatch.setattr(serve_ray.Rollout, "run", run)
    monkeypatch.setattr(serve_ray, "replicas_running", lambda: 2)
    monkeypatch.setattr(serve_ray, "_take_down", lambda: None)
    return made


def some(**changes: Any) -> Settings:
    return given_settings({"bundle": "small", **changes})


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ending:
        main(["serve", *arguments])
    return int(ending.value.code or 0)


@pytest.mark.system
def test_nothing_of_ray_is_imported_for_a_service_without_it() -> None:
    program = "import sys, service.process; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, env={**os.environ}).returncode == 0


def test_where_ray_is_not_installed_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ})
    monkeypatch.setitem(sys.modules, "ray", None)
    assert exit_code("--bundle", "small", "--ray", "local", "--port", "0") == 65
    assert "install genrec[ray]" in capsys.readouterr().err


def test_replicas_without_ray_are_a_mistake_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--bundle", "small", "--replicas", "2") == 2
    assert "--replicas" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [["--ray", "local", "--replicas", "none"], ["--ray", "local", "--device", "cuda:1"], ["--ray", "ray://h:1"]],
)
def test_what_cannot_be_is_refused_before_a_cluster_is_touched(flags: list[str]) -> None:
    assert exit_code("--bundle", "small", *flags) == 65


def test_on_a_cluster_that_was_there_the_command_deploys_and_ends(
    rollouts: list[serve_ray.Rollout], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    serve_on_ray(some(api_keys_file="keys"), "head:6379", Replicas(2, 2))
    (rollout,) = rollouts
    assert rollout.settings.api_keys_file == tmp_path / "keys"
    assert (rollout.cluster.address, rollout.replicas, rollout.variables) == ("head:6379", Replicas(2, 2), {})
    assert rollout.settings.bundle == tmp_path / "small", "replicas have another working directory"


def test_a_deploy_that_is_told_to_stop_does_not_say_that_it_is_done(
    rollouts: list[serve_ray.Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_ray.Rollout, "run", lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Stopped, match="goes on by itself"):
        serve_on_ray(some(), "head:6379", Replicas())


def test_a_cluster_of_its_own_is_served_until_a_signal_comes_and_then_taken_down(
    rollouts: list[serve_ray.Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(serve_ray, "_check_cluster", lambda: steps.append("checked"))
    monkeypatch.setattr(serve_ray, "_take_down", lambda: steps.append("taken down"))
    monkeypatch.setattr(serve_ray, "sleep", lambda _: signal.raise_signal(signal.SIGTERM) if len(steps) == 2 else None)
    before = signal.getsignal(signal.SIGTERM)
    serve_on_ray(some(port=0), "local", Replicas())
    assert steps == ["checked", "checked", "taken down"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert rollouts[0].settings.port > 0
    directory = Path(rollouts[0].variables["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
    assert not directory.exists()


def test_a_second_signal_does_not_cut_short_what_the_first_began(
    rollouts: list[serve_ray.Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def take_down() -> None:
        signal.raise_signal(signal.SIGTERM)
        ended.append("whole")

    monkeypatch.setattr(serve_ray, "_take_down", take_down)
    monkeypatch.setattr(serve_ray, "_check_cluster", lambda: signal.raise_signal(signal.SIGINT))
    serve_on_ray(some(port=0), "local", Replicas())
    assert ended == ["whole"]


def test_a_cluster_of_its_own_that_is_gone_ends_the_service(
    rollouts: list[serve_ray.Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise EngineError("the Ray cluster does not answer any more.")

    monkeypatch.setattr(serve_ray, "_check_cluster", gone)
    with pytest.raises(EngineError, match="does not answer"):
        serve_on_ray(some(port=0), "local", Replicas())


def test_a_port_that_is_taken_is_told_before_a_cluster_starts(rollouts: list[serve_ray.Rollout]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot listen on"):
        serve_on_ray(some(port=port_of(taken)), "local", Replicas())
    assert rollouts == []
