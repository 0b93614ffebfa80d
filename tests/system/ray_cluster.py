"""A real Ray cluster on this machine: each node its own processes, as on machines of their own; it asks for a token."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
STORE_BYTES = 80_000_000
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Node:
    """One `ray start`, and all that came of it."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def processes(self) -> list[psutil.Process]:
        """Its own and all below, workers included."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL to every process at once, as when the machine loses its power."""
        end(self.processes)
        self.process.wait()


@dataclass(frozen=True)
class Cluster:
    """Nodes that have found each other.

    Attributes:
        address: HOST:PORT of the head.
        environment: what a command needs to be let in.
        nodes: the head first.
    """

    address: str
    environment: dict[str, str]
    nodes: list[Node]
    directory: Path

    def add_node(self, cpus: int) -> Node:
        """Start one more node and wait until it has joined."""
        name = f"node-{len(self.nodes)}"
        node = _started(self.directory / name, self.environment, ["--address", self.address], cpus)
        self.nodes.append(node)
        return node

    def workers(self, name: str) -> list[psutil.Process]:
        """Ray's worker processes that have this in their name, such as the class of an actor, on all nodes."""
        return [process for node in self.nodes for process in node.processes if name in _title(process)]


@contextmanager
def cluster(*cpus: int, **variables: str) -> Iterator[Cluster]:
    """A head with the first number of CPUs, and a node for each further number; all of it is gone afterwards.

    Args:
        cpus: of each node, which need not be there.
        variables: of every node's environment.
    """
    # Not pytest's directory: Ray's sockets lie in it, and their paths may have 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="ray-"))
    token = directory / "token"
    token.write_text(secrets.token_hex(32))
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **variables}
    head = ["--head", "--port", "0", "--include-dashboard", "false", "--ray-client-server-port", str(_free_port())]
    nodes: list[Node] = []
    try:
        nodes.append(_started(directory / "node-0", environment, head, cpus[0]))
        found = re.search(r"ray start --address='([^']+)'", nodes[0].log.read_text())
        assert found, nodes[0].log.read_text()
        made = Cluster(found[1], environment, nodes, directory)
        for count in cpus[1:]:
            made.add_node(count)
        yield made
    finally:
        end([process for node in nodes for process in node.processes])
        for node in nodes:
            node.process.wait()
        _end_orphans(directory)
        shutil.rmtree(directory, ignore_errors=True)


def end(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to all of them; those above first, so that none is started again."""
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def _started(directory: Path, variables: dict[str, str], flags: Sequence[str], cpus: int) -> Node:
    directory.mkdir()
    log = directory / "log"
    command = [*RAY, "start", "--block", "--disable-usage-stats", "--num-cpus", str(cpus), "--num-gpus", "0"]
    command += ["--object-store-memory", str(STORE_BYTES), "--temp-dir", str(directory)]
    command += ["--dashboard-agent-listen-port", "0", *flags]
    with log.open("wb") as stream:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    node = Node(process, log)
    deadline = time.monotonic() + PATIENCE_S
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            end(node.processes)
            raise RuntimeError(f"a node did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)
    return node


def _end_orphans(directory: Path) -> None:
    """End what a killed node left behind: two agents of Ray's wait for a minute for a head that is gone."""
    mine = re.compile(re.escape(str(directory)) + r"(/|\x00|$)")
    end([process for process in psutil.process_iter() if mine.search(_command(process))])


def _command(process: psutil.Process) -> str:
    try:
        return "\0".join([*process.cmdline(), *process.environ().values()])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
