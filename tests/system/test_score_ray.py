"""`genrec score --ray` on a real cluster of two nodes: the bytes of one machine, whoever is killed meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes import TinyShape, tiny_bundle
from tests.service.scoring import content_of, rows_of, some_rows, write_rows
from tests.system.ray_cluster import Cluster, cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]  # a command takes 10 s, on a busy machine many times that

ROWS, SHARD_ROWS = 6000, 100
NUM_SHARDS = ROWS // SHARD_ROWS
POISON = 1234
LOCKED = 75
PATIENCE_S = 400.0

Score = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster(1, 1) as made:
        yield made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = some_rows(ROWS)
    rows[POISON]["history"] = ["i1", {"no": "id"}]
    return write_rows(tmp_path_factory.mktemp("input") / "rows.jsonl", rows)


@pytest.fixture(scope="module")
def score(source: Path) -> Iterator[Score]:
    """Begins the command in a process of its own, which writes what it says beside its output."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(bundle: Path, output: Path, *flags: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "genrec", "score", "--bundle", str(bundle), "--input", str(source)]
        command += ["--output", str(output), "--shard-rows", str(SHARD_ROWS), *flags]
        with said_in(output).open("ab") as stream:
            given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
            begun.append(subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=given))
        return begun[-1]

    yield begin
    for run in begun:
        run.kill()
        run.wait()


@pytest.fixture(scope="module")
def expected(causal_bundle_path: Path, score: Score, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes of it."""
    output = tmp_path_factory.mktemp("one") / "out"
    run = score(causal_bundle_path, output, "--workers", "1")
    assert finished(run) == 3
    assert [row["user_id"] for row in rows_of(output)] == [f"u{number}" for number in range(ROWS)]
    assert [number for number, row in enumerate(rows_of(output)) if row["error"]] == [POISON]
    return content_of(output)


def said_in(output: Path) -> Path:
    return output.with_suffix(".log")


def finished(run: subprocess.Popen[bytes]) -> int:
    return run.wait(PATIENCE_S)


def until(holds: Callable[[], object], run: subprocess.Popen[bytes]) -> bool:
    """Wait until it holds; False if the command has ended before."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if run.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return True


def num_commits(output: Path) -> int:
    return sum(1 for _ in (output / "_commits").glob("part-*.json"))


def test_a_cluster_that_is_too_small_or_does_not_know_us_is_refused_at_once(
    nodes: Cluster, causal_bundle_path: Path, score: Score, tmp_path: Path
) -> None:
    def refused(*flags: str, **environment: str) -> str:
        run = score(causal_bundle_path, tmp_path / "out", "--ray", nodes.address, *flags, **environment)
        assert finished(run) == 65
        return said_in(tmp_path / "out").read_text().splitlines()[-1]

    assert "a worker needs 2 CPUs, but none of the 2 nodes" in refused("--threads", "2", **nodes.environment)
    stranger = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    assert "asks for a token and there is none here" in refused(**stranger)


def test_the_bytes_are_those_of_one_machine_and_another_bundle_is_refused(
    nodes: Cluster, causal_bundle_path: Path, score: Score, expected: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run = score(causal_bundle_path, output, "--ray", nodes.address, **nodes.environment)
    assert finished(run) == 3, said_in(output).read_text()  # the poisoned row
    assert content_of(output) == expected

    other = tiny_bundle(tmp_path, TinyShape(seed=7))
    run = score(other, output, "--ray", nodes.address, **nodes.environment)
    assert finished(run) == 65
    assert "is the output of another job: bundle was" in said_in(output).read_text()
    assert content_of(output) == expected


def test_whatever_is_killed_no_row_is_lost_or_doubled(
    nodes: Cluster, causal_bundle_path: Path, score: Score, expected: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"

    def begin() -> subprocess.Popen[bytes]:
        return score(causal_bundle_path, output, "--ray", nodes.address, **nodes.environment)

    run = begin()  # the command
    assert until(lambda: num_commits(output) >= 3, run)
    run.kill()
    run.wait()
    before = num_commits(output)
    assert 3 <= before < NUM_SHARDS

    run = begin()
    while not until(lambda: num_commits(output) >= before + 3, run):
        assert run.poll() == LOCKED  # by workers of the killed command, which end within moments
        run = begin()
    nodes.workers("ShardScorer")[0].kill()  # a worker
    before = num_commits(output)

    assert until(lambda: num_commits(output) >= before + 3, run)
    nodes.nodes.pop().kill()  # a node
    assert num_commits(output) < NUM_SHARDS
    assert finished(run) == 3, said_in(output).read_text()
    assert content_of(output) == expected
    assert "going on: " in said_in(output).read_text()


def test_a_cluster_of_this_machine_ends_with_the_command(
    causal_bundle_path: Path, score: Score, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run = score(causal_bundle_path, output, "--ray", "local", HOME=str(tmp_path))
    assert until(lambda: num_commits(output) >= 3, run)
    below = psutil.Process(run.pid).children(recursive=True)
    assert any("raylet" in process.name() for process in below)
    run.terminate()
    assert finished(run) == 143
    assert 3 <= num_commits(output) < NUM_SHARDS
    assert not psutil.wait_procs(below, timeout=10)[1]
    assert not (tmp_path / ".ray").exists()
    assert "Traceback" not in said_in(output).read_text()
