"""Joining a cluster: who is let in, what is refused in words, and what Ray may not change of this process."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from genrec.errors import InputError
from service import ray_cluster
from service.ray_cluster import RayCluster, Share, joined


class FakeRay:
    """What of Ray is called, in the place of the module."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(AuthenticationError=type("AuthenticationError", (Exception,), {}))
        self.told: dict[str, Any] = {}
        self.was_shut_down = False
        self.while_joining: Callable[[], None] = lambda: None
        self.node_resources: list[Mapping[str, float]] = [{"CPU": 2.0}]
        self.free: list[Mapping[str, float]] = [{"CPU": 2.0}]

    def init(self, address: str, **told: object) -> None:
        self.told = {"address": address, **told}
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does
        self.while_joining()

    def shutdown(self, **_: object) -> None:
        self.was_shut_down = True

    def nodes(self) -> list[dict[str, object]]:
        dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        return [dead, *({"Alive": True, "Resources": resources} for resources in self.node_resources)]

    def available_resources(self) -> Mapping[str, float]:
        return self.free.pop(0) if len(self.free) > 1 else self.free[0]

    def cluster_resources(self) -> Mapping[str, float]:
        return {"CPU": sum(resources.get("CPU", 0) for resources in self.node_resources)}


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "environ", {"HOME": "/home/someone"})
    monkeypatch.setattr(ray_cluster, "_PATIENCE_S", 0.0)
    handler = signal.getsignal(signal.SIGTERM)
    yield fake
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def asks_for_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_check_that_tokens_are_asked_for", lambda address: None)


def refused(address: str) -> str:
    """The sentence with which it is not joined."""
    with pytest.raises(InputError) as refusal, joined(address):
        pytest.fail("joined")
    return str(refusal.value)


@pytest.mark.parametrize("address", ["ray://head:10001", "auto", "head", "", "head:6379/x", "http://head:6379"])
def test_what_is_no_address_is_refused_before_anything_of_ray_is_imported(address: str) -> None:
    assert "neither HOST:PORT of the head node nor 'local'" in refused(address)


@pytest.mark.parametrize("package", ["ray", "grpc"])
def test_without_ray_the_sentence_says_what_to_install(
    package: str, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]  (an import of it fails)
    assert refused("local") == f"--ray needs the package {package}: install genrec[ray]."


def test_a_cluster_of_this_machine_has_a_token_no_dashboard_and_reports_to_no_one(ray: FakeRay) -> None:
    with joined("local"):
        assert ray.told == {
            "address": "local",
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": "ERROR",
            "object_store_memory": 100_000_000,
        }
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert not ray.was_shut_down
    assert ray.was_shut_down


def test_each_cluster_of_this_machine_has_another_token(ray: FakeRay) -> None:
    tokens = set()
    for _ in range(2):
        with joined("local"):
            tokens.add(os.environ.pop("RAY_AUTH_TOKEN"))
    assert len(tokens) == 2


@pytest.mark.parametrize("given", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_was_given_is_the_one_that_counts(given: str, ray: FakeRay) -> None:
    os.environ[given] = "given"
    with joined("local"):
        assert {name: value for name, value in os.environ.items() if "TOKEN" in name} == {given: "given"}


def test_authentication_cannot_be_switched_off_from_outside(ray: FakeRay, asks_for_tokens: None) -> None:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with joined("10.0.0.1:6379", {"RAY_SERVE_ENABLE_HA_PROXY": "1"}):
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        assert "RAY_AUTH_TOKEN" not in os.environ  # there it is the cluster's


def test_a_cluster_that_is_joined_is_told_nothing_about_itself(ray: FakeRay, asks_for_tokens: None) -> None:
    with joined("10.0.0.1:6379", worker_logs=True):
        assert ray.told == {"address": "10.0.0.1:6379", "log_to_driver": True, "logging_level": "ERROR"}


def test_sigterm_stays_ours(ray: FakeRay) -> None:
    heard = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    signal.signal(signal.SIGTERM, hear)
    with joined("local"):
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_sigterm_while_it_joins_is_ours_too(ray: FakeRay) -> None:
    class Terminated(BaseException):
        pass

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    ray.while_joining = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated), joined("local"):
        pytest.fail("joined")
    assert ray.was_shut_down


def test_without_a_token_here_the_sentence_says_where_it_belongs(ray: FakeRay, asks_for_tokens: None) -> None:
    def fail() -> None:
        raise ray.exceptions.AuthenticationError("Ensure that the token for the cluster is available in a local file")

    ray.while_joining = fail
    assert refused("10.0.0.1:6379") == (
        "the Ray cluster 10.0.0.1:6379 asks for a token and there is none here: its file belongs to ~/.ray/auth_token, "
        "or where RAY_AUTH_TOKEN_PATH says."
    )


def test_whatever_else_ray_says_when_it_cannot_join_becomes_one_sentence(ray: FakeRay, asks_for_tokens: None) -> None:
    def fail() -> None:
        raise ConnectionError("Failed to connect\nto Ray cluster")

    ray.while_joining = fail
    assert refused("10.0.0.1:6379").startswith(
        "cannot join the Ray cluster 10.0.0.1:6379 (Failed to connect to Ray cluster): its token must be the one of"
    )


@pytest.mark.parametrize(
    ("share", "resources", "workers"),
    [
        (Share(1), {"CPU": 4.0}, 4),
        (Share(3), {"CPU": 4.0}, 1),
        (Share(5), {"CPU": 4.0}, 0),
        (Share(1), {}, 0),
        (Share(1, 1), {"CPU": 16.0, "GPU": 2.0}, 2),
        (Share(4, 1), {"CPU": 7.0, "GPU": 2.0}, 1),
        (Share(1, 1), {"CPU": 16.0}, 0),
        (Share(1), {"CPU": 1.9999}, 1),
    ],
)
def test_how_many_workers_a_node_has_room_for(share: Share, resources: Mapping[str, float], workers: int) -> None:
    assert share.fits(resources) == workers


def test_room_is_counted_node_by_node_and_dead_nodes_have_none(ray: FakeRay) -> None:
    ray.node_resources = [{"CPU": 3.0}, {"CPU": 3.0, "GPU": 1.0}, {}]
    ray.free = [{"CPU": 6.0, "GPU": 1.0}]
    assert RayCluster("local").num_gpus == 1
    assert RayCluster("local").room(Share(2)) == 2  # not 6 // 2
    assert RayCluster("local").room(Share(1, 1)) == 1


def test_a_worker_that_fits_on_no_node_is_refused_with_what_is_there_and_what_is_needed(ray: FakeRay) -> None:
    ray.node_resources = [{"CPU": 3.0}, {"CPU": 3.0}]
    ray.free = [{"CPU": 6.0}]
    with pytest.raises(InputError) as refusal:
        RayCluster("h:1").room(Share(4))
    assert str(refusal.value) == (
        "a worker needs 4 CPUs, but none of the 2 nodes of the Ray cluster h:1 has as much (the largest has 3 CPUs): "
        "give a worker fewer threads, or add a larger node."
    )


def test_a_cluster_that_others_keep_busy_is_refused_after_a_while(ray: FakeRay) -> None:
    ray.free = [{}]
    with pytest.raises(InputError) as refusal:
        RayCluster("h:1").room(Share(1))
    assert str(refusal.value) == (
        "a worker needs 1 CPU, but of the 2 CPUs of the Ray cluster h:1 0 CPUs are free: wait for what runs there "
        "(`ray status`), or add a node."
    )


def test_what_a_job_that_has_just_ended_held_is_waited_for(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_PATIENCE_S", 20.0)
    ray.free = [{}, {"CPU": 2.0}]
    assert RayCluster("local").room(Share(1)) == 2


@pytest.mark.system
def test_a_cluster_that_lets_anyone_in_is_not_joined(ray: FakeRay) -> None:
    with answering(lambda request, context: b"") as address:
        assert refused(address) == (
            f"the Ray cluster {address} lets in anyone who can reach it, to run any code: start its nodes with "
            "RAY_AUTH_MODE=token and a token, see docs/ray.md."
        )
    assert ray.told == {}


@pytest.mark.system
def test_a_cluster_that_asks_for_a_token_is(ray: FakeRay) -> None:
    import grpc

    def refuse(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: …")
        raise AssertionError

    with answering(refuse) as address, joined(address):
        assert ray.told["address"] == address


@pytest.mark.system
def test_an_address_where_nothing_answers_is_refused_at_once(ray: FakeRay) -> None:
    assert refused("127.0.0.1:9").startswith("no Ray cluster answers at 127.0.0.1:9 (UNAVAILABLE): give HOST:PORT")


@contextmanager
def answering(answer: Callable[[bytes, Any], bytes]) -> Iterator[str]:
    """The address of a gRPC server that answers every call like this."""
    import grpc

    handler = SimpleNamespace(service=lambda call: grpc.unary_unary_rpc_method_handler(answer))
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()
