"""A Ray cluster for as long as a command runs: the one at an address, or one of this machine alone.

Whoever reaches a Ray cluster may run code on it (CVE-2023-48022, "ShadowRay"), and its processes listen on every
address of a machine. So no cluster is joined that lets in someone without a token, and one that is started here has a
token of its own. Nothing of Ray is imported before a cluster is asked for: it reads its variables when it is imported.
Knows neither scoring nor HTTP.
"""

import os
import re
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep

from genrec.errors import InputError, one_line

LOCAL = "local"

_ADDRESS = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):[0-9]{1,5}$")
_OPEN_TO_ALL = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A call that reads nothing and that Ray answers to no one without a token, where it asks for tokens."""

_PROBE_S = 10.0
_PATIENCE_S = 20.0
"""What a job that has just ended held is free again within seconds."""

_OBJECT_STORE_BYTES = 100_000_000
"""Of a cluster started here: descriptors and records pass through it, no rows. Ray takes no less than 75 MiB."""

_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its log files of a cluster started here, and lines between ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what will be the default, of which it warns at each start
}


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker takes of a node."""

    cpus: int
    gpus: int = 0

    def __str__(self) -> str:
        gpus = f" and {_counted(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{_counted(self.cpus, 'CPU')}{gpus}"

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many workers a node, or what is free of one, has room for."""
        of_each = [(resources.get("CPU", 0), self.cpus), (resources.get("GPU", 0), self.gpus)]
        return min((int(there // needed) for there, needed in of_each if needed), default=0)


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A cluster that this process has joined.

    Attributes:
        address: HOST:PORT, or "local".
    """

    address: str

    @property
    def num_gpus(self) -> int:
        """Of all its nodes."""
        return int(sum(node.get("GPU", 0) for node in self._nodes()))

    def room(self, share: Share) -> int:
        """How many workers its nodes have room for, of which at least one can start now.

        Ray itself would wait for ever, without a word, for what is not there.

        Raises:
            InputError: not even one.
        """
        nodes = self._nodes()
        if not (room := sum(share.fits(node) for node in nodes)):
            largest = max((node.get("GPU", 0), node.get("CPU", 0)) for node in nodes)
            raise InputError(
                f"a worker needs {share}, but none of the {_counted(len(nodes), 'node')} of the Ray cluster "
                f"{self.address} has as much (the largest has {Share(int(largest[1]), int(largest[0]))}): "
                "give a worker fewer threads, or add a larger node."
            )
        self._wait_for(share)
        return room

    def _wait_for(self, share: Share) -> None:
        import ray

        deadline = monotonic() + _PATIENCE_S
        while not share.fits(free := ray.available_resources()):
            if monotonic() > deadline:
                there = Share(int(ray.cluster_resources().get("CPU", 0)), self.num_gpus)
                unused = Share(int(free.get("CPU", 0)), int(free.get("GPU", 0)))
                raise InputError(
                    f"a worker needs {share}, but of the {there} of the Ray cluster {self.address} {unused} are "
                    "free: wait for what runs there (`ray status`), or add a node."
                )
            sleep(0.2)

    def _nodes(self) -> list[Mapping[str, float]]:
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def joined(
    address: str, variables: Mapping[str, str] | None = None, *, worker_logs: bool = False
) -> Iterator[RayCluster]:
    """Join the cluster at `address`; "local" starts one of this machine, which ends with the block.

    SIGTERM is handled as before: Ray sets a handler of its own.

    Args:
        address: HOST:PORT of the head node, or "local".
        variables: Ray's own, beside those that every cluster here gets; for a cluster that is joined they count in this
            process alone.
        worker_logs: print here what workers print on any node.

    Raises:
        InputError: there is no Ray here, no cluster there, no token, or no node of the cluster on this machine.
    """
    if address != LOCAL and not _ADDRESS.match(address):
        raise InputError(
            f"--ray {address} is neither HOST:PORT of the head node nor 'local'; ray:// (Ray Client) is not taken: "
            "start the command on a node of the cluster."
        )
    _set_variables(address, variables or {})
    try:
        import grpc  # noqa: F401  (the probe's, part of the same extra)
        import ray
    except ModuleNotFoundError as error:
        raise InputError(f"--ray needs the package {error.name}: install genrec[ray].") from error
    if address != LOCAL:
        _check_that_tokens_are_asked_for(address)
    try:
        _join(address, worker_logs)
        yield RayCluster(address)
    finally:
        ray.shutdown(wait_for_processes=True)


def _set_variables(address: str, variables: Mapping[str, str]) -> None:
    """Ray has no other way to be told, in this process and in those that it starts; it reads them once."""
    environment = os.environ  # noqa: TID251  (Ray's variables, written; ours are read in service/settings.py)
    environment.update({**_VARIABLES, **variables})
    if address == LOCAL and not any(name in environment for name in _TOKENS):
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _check_that_tokens_are_asked_for(address: str) -> None:
    """Ask as someone without a token would: RAY_AUTH_MODE here says nothing of what the cluster asks of others."""
    import grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_OPEN_TO_ALL)(b"", timeout=_PROBE_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return
            raise InputError(
                f"no Ray cluster answers at {address} ({error.code().name}): give HOST:PORT of its head node, the "
                "address that `ray start --head` printed."
            ) from error
    raise InputError(
        f"the Ray cluster {address} lets in anyone who can reach it, to run any code: start its nodes with "
        "RAY_AUTH_MODE=token and a token, see docs/ray.md."
    )


def _join(address: str, worker_logs: bool) -> None:
    import ray

    here = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES} if address == LOCAL else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=worker_logs, logging_level="ERROR", **here)
    except ray.exceptions.AuthenticationError as error:
        raise InputError(
            f"the Ray cluster {address} asks for a token and there is none here: its file belongs to "
            "~/.ray/auth_token, or where RAY_AUTH_TOKEN_PATH says."
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot join the Ray cluster {address} ({one_line(error)}): its token must be the one of this machine, "
            "and a node of it must run here (`ray start --address`)."
        ) from error
    except SystemExit:  # SIGTERM while it joined, in Ray's words
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
