"""A rollout on a cluster that only notes what it is told; on a real one it is in tests/system/test_serve_ray.py."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genrec.errors import BundleError, EngineError, InputError
from service import ray_rollout
from service.ray_cluster import RayCluster
from service.ray_deployment import NAME, Replicas
from service.ray_rollout import Rollout, replicas_running
from service.settings import given_settings


class _RayError(Exception):
    pass


class _RayTaskError(_RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class FakeRay:
    """What of Ray and Ray Serve is called, in the place of the modules."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(RayError=_RayError, RayTaskError=_RayTaskError)
        self.serve = self
        self.told: list[str] = []
        self.running = 0
        self.free = {"CPU": 8.0}
        self.machines = ["10.0.0.1"]
        self.listens = ("127.0.0.1", 8000)
        self.breaks: Exception | None = None
        self.does_not_start = False
        self.deployed: Any = None

    # Ray

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeManagerAddress": one, "Resources": self.free} for one in self.machines]

    def available_resources(self) -> dict[str, float]:
        return self.free

    def remote(self, **_: object) -> Callable[..., Any]:
        return lambda function: SimpleNamespace(remote=lambda *given: lambda: function(*given))

    def get(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise error if isinstance(error, _RayError) else _RayTaskError(error) from error

    def get_actor(self, *_: object, **__: object) -> Any:
        host, port = self.listens
        config = SimpleNamespace(host=host, port=port)
        return SimpleNamespace(get_http_config=SimpleNamespace(remote=lambda: lambda: config))

    # Ray Serve

    def status(self) -> Any:
        states = SimpleNamespace(replica_states={"RUNNING": self.running})
        return SimpleNamespace(applications={NAME: SimpleNamespace(deployments={NAME: states})} if self.running else {})

    def start(self, **_: object) -> None:
        self.told.append("start")
        if self.does_not_start:
            raise TimeoutError("HTTP proxies not available after 60s.")

    def run(self, application: Any, **_: object) -> None:
        self.told.append("run")
        self.deployed = application
        if self.breaks:
            raise self.breaks

    def delete(self, name: str) -> None:
        self.told.append(f"delete {name}")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ray.serve", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(ray_rollout, "application", lambda settings, *_: settings)
    monkeypatch.setattr(RayCluster, "room", lambda _, share: sum(share.fits(fake.free) for _ in fake.machines))
    manifest = SimpleNamespace(version="0123456789ab")
    loaded = SimpleNamespace(bundle=SimpleNamespace(manifest=manifest))
    monkeypatch.setattr(ray_rollout, "load_to_serve", lambda *_: loaded)
    return fake


def rollout(**settings: Any) -> Rollout:
    given = given_settings({"bundle": "small", "threads": 1, "device": "cpu", **settings})
    return Rollout(RayCluster("head:6379"), given, Replicas(2, 2), {})


def test_replicas_serve_the_version_that_was_proven_or_nothing(ray: FakeRay) -> None:
    assert rollout().run().expect_version == "0123456789ab"
    assert ray.deployed.expect_version == "0123456789ab"
    assert ray.told == ["start", "run"]


def test_a_refused_bundle_changes_nothing(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BundleError("the file items.parquet is damaged.")

    monkeypatch.setattr(ray_rollout, "load_to_serve", refuse)
    ray.running = 2
    with pytest.raises(BundleError, match=r"^the file items\.parquet is damaged\.$"):
        rollout().run()
    assert ray.told == []


def test_keys_that_are_not_on_the_nodes_change_nothing(ray: FakeRay, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keys"):
        rollout(host="0.0.0.0", api_keys_file=tmp_path / "keys").run()
    assert ray.told == []


@pytest.mark.parametrize("failure", [ImportError("no module named torch"), _RayError("the worker died\nof memory")])
def test_a_proof_that_breaks_is_one_sentence(ray: FakeRay, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(ray_rollout, "load_to_serve", fail)
    with pytest.raises(EngineError, match=r"^the (bundle could not be proven|process that was to prove).*\.$"):
        rollout().run()


def test_a_bundle_that_takes_the_place_of_another_needs_room_for_one_replica_more(ray: FakeRay) -> None:
    ray.free = {"CPU": 2.0}
    rollout().run()
    ray.running, ray.free = 2, {"CPU": 0.0}
    ray.told.clear()
    with pytest.raises(InputError, match="3 replicas of 1 CPU each are needed, 1 of them while old ones still serve"):
        rollout().run()
    assert ray.told == []


def test_replicas_that_do_not_fit_are_told_before_anything_starts(ray: FakeRay) -> None:
    ray.free = {"CPU": 3.0}
    with pytest.raises(InputError, match=r"2 replicas of 2 CPUs each are needed, but .* room for 1 now"):
        rollout(threads=2).run()
    assert ray.told == []


def test_replicas_on_other_machines_are_not_looked_for_on_loopback(ray: FakeRay) -> None:
    ray.machines = ["10.0.0.1", "10.0.0.2"]
    with pytest.raises(InputError, match=r"set --host 0\.0\.0\.0"):
        rollout().run()


def test_another_address_than_ray_serve_listens_on_is_told(ray: FakeRay) -> None:
    ray.listens = ("0.0.0.0", 9000)
    with pytest.raises(InputError, match=r"listens on 0\.0\.0\.0 port 9000 on this cluster already"):
        rollout().run()
    assert "run" not in ray.told


def test_a_ray_serve_that_does_not_start_is_one_sentence(ray: FakeRay) -> None:
    ray.does_not_start = True
    with pytest.raises(EngineError, match=r"^Ray Serve did not start on the cluster: HTTP proxies not available"):
        rollout().run()


def test_replicas_that_do_not_start_leave_nothing_behind(ray: FakeRay) -> None:
    ray.breaks = RuntimeError(
        "Deploying application genrec failed: Traceback\n  File\ngenrec.errors.BundleError: no.\n"
    )
    with pytest.raises(EngineError, match=r"^the replicas did not start: genrec\.errors\.BundleError: no"):
        rollout().run()
    assert ray.told == ["start", "run", f"delete {NAME}"]


def test_new_replicas_that_do_not_start_leave_the_old_ones(ray: FakeRay) -> None:
    ray.running, ray.breaks = 2, RuntimeError("Deploying application genrec failed: x")
    with pytest.raises(EngineError, match="2 that served before still do, but none that is lost is started again"):
        rollout().run()
    assert ray.told == ["start", "run"]


def test_auto_is_a_gpu_where_the_cluster_has_any(ray: FakeRay) -> None:
    assert rollout(device="auto").run().device == "cpu"
    ray.free = {"CPU": 8.0, "GPU": 2.0}
    assert rollout(device="auto").run().device == "cuda"


def test_only_replicas_that_run_are_counted(ray: FakeRay) -> None:
    assert replicas_running() == 0
    ray.running = 3
    assert replicas_running() == 3
