"""`genrec score` killed, starved, raced and damaged: each row is there once, and the bytes are those of a quiet run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.service.scoring import content_of, rows_of, some_rows, write_rows
from tests.system.score_process import Scoring, parts, until, workers_in

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
ROWS, SHARD_ROWS = 300, 10
FLAGS = ("--shard-rows", str(SHARD_ROWS), "--batch-size", "2")
KILLS = 20
LOCKED = 75


@dataclass(frozen=True)
class Unbroken:
    """A run that nothing happened to, with two workers."""

    bundle: Path
    source: Path
    output: Path
    seconds: float


@pytest.fixture(scope="module")
def unbroken(causal_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    root = tmp_path_factory.mktemp("unbroken")
    source = write_rows(root / "rows.jsonl", some_rows(ROWS))
    Scoring.start(causal_bundle_path, source, root / "warm", *FLAGS, "--workers", "2").end()
    begin = time.monotonic()
    assert Scoring.start(causal_bundle_path, source, root / "out", *FLAGS, "--workers", "2").end() == 0
    return Unbroken(causal_bundle_path, source, root / "out", time.monotonic() - begin)


@pytest.fixture
def running(unbroken: Unbroken, tmp_path: Path) -> Iterator[Scoring]:
    """A run with two workers that has committed a little and has most before it."""
    scoring = Scoring.start(unbroken.bundle, unbroken.source, tmp_path / "out", *FLAGS, "--workers", "2")
    try:
        until(lambda: parts(scoring.output) >= 2 and len(scoring.workers) == 2)
        yield scoring
    finally:
        scoring.kill_all()


def finish(unbroken: Unbroken, output: Path, workers: int = 2) -> None:
    """Start it once more, undisturbed: it is as if nothing had happened."""
    log = output.parent.with_suffix(".finish.log")
    scoring = Scoring.start(unbroken.bundle, unbroken.source, output, *FLAGS, "--workers", str(workers), log=log)
    assert scoring.end() == 0, scoring.said
    assert content_of(output) == content_of(unbroken.output)


def test_one_worker_writes_what_two_write(unbroken, tmp_path):
    finish(unbroken, tmp_path / "out", workers=1)
    assert [row["user_id"] for row in rows_of(tmp_path / "out")] == [f"u{number}" for number in range(ROWS)]


@pytest.mark.timeout(300)
def test_killed_at_twenty_instants_and_started_again_each_time_the_bytes_are_the_same(unbroken, tmp_path):
    """The instants lie over the time of an unbroken run; a run that was to be killed and is done begins anew."""
    rng = random.Random(7)
    killed = interrupted = round_ = 0
    while killed < KILLS:
        round_ += 1
        output = tmp_path / f"out-{round_}"
        while True:
            scoring = Scoring.start(unbroken.bundle, unbroken.source, output, *FLAGS, "--workers", "2")
            scoring.process.join(rng.uniform(0, unbroken.seconds))
            if scoring.process.exitcode is not None:
                break
            scoring.kill_all()
            killed += 1
            interrupted += 0 < parts(output) < ROWS // SHARD_ROWS
            until(lambda out=output: not workers_in(out))
            if killed == KILLS:
                break
        finish(unbroken, output)
        assert [row["user_id"] for row in rows_of(output)] == [f"u{number}" for number in range(ROWS)]
    assert interrupted >= KILLS // 4, "most kills came before the first part or after the last"


def test_of_two_drivers_the_second_is_told_75(unbroken, running):
    workers = running.workers
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    second = Scoring.start(unbroken.bundle, unbroken.source, running.output, *FLAGS)
    assert second.end() == LOCKED
    assert "is being written by another run" in second.said
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    assert running.end() == 0
    assert content_of(running.output) == content_of(unbroken.output)


def test_while_workers_of_a_killed_driver_live_another_driver_is_told_75(unbroken, running):
    workers = running.workers
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    os.kill(running.pid, signal.SIGKILL)
    running.end()
    second = Scoring.start(unbroken.bundle, unbroken.source, running.output, *FLAGS)
    assert second.end() == LOCKED
    assert "workers of a run that was killed still end" in second.said
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not workers_in(running.output), timeout=10)
    finish(unbroken, running.output)


def test_workers_of_a_killed_driver_end_by_themselves(unbroken, running):
    os.kill(running.pid, signal.SIGKILL)
    running.end()
    until(lambda: not workers_in(running.output), timeout=10)
    finish(unbroken, running.output)


def test_workers_killed_five_times_are_replaced_and_the_job_goes_on(unbroken, running):
    """The other one waits meanwhile: it would finish the job before the fifth is there."""
    for killed in range(5):
        there, both = parts(running.output), running.workers
        (victim, other) = both if killed % 2 else reversed(both)
        os.kill(other, signal.SIGSTOP)
        os.kill(victim, signal.SIGKILL)
        until(lambda both=both: set(running.workers) - set(both))
        os.kill(other, signal.SIGCONT)
        until(lambda there=there: parts(running.output) > there)
    assert len(running.workers) == 2, "the job was over before the fifth was replaced"
    assert running.end() == 0, running.said
    assert content_of(running.output) == content_of(unbroken.output)


def test_a_shard_at_which_every_worker_dies_ends_the_job_with_a_sentence_and_the_others_stay(unbroken, running):
    deaths = 0

    def killed_all() -> bool:
        nonlocal deaths
        for pid in running.workers:
            os.kill(pid, signal.SIGKILL)
            deaths += 1
        return running.process.exitcode is not None

    until(killed_all)
    assert running.end() == 70
    assert "memory may be short: give fewer --workers or a smaller --batch-size" in running.said
    assert "by signal 9, Killed, 3 times" in running.said
    assert "Traceback" not in running.said
    assert deaths >= 3
    finish(unbroken, running.output)


@pytest.mark.parametrize("whom", ["driver", "everyone"])
def test_sigterm_ends_all_within_ten_seconds_with_143_and_it_can_be_gone_on_from(unbroken, running, whom):
    begin = time.monotonic()
    for pid in [running.pid, *(running.workers if whom == "everyone" else [])]:
        os.kill(pid, signal.SIGTERM)
    assert running.end(10) == 143
    assert time.monotonic() - begin < 10
    assert not workers_in(running.output)
    assert running.said.endswith(
        "genrec score: stopped by SIGTERM; start it again to go on, finished parts are kept.\n"
    )
    assert not (running.output / "_SUCCESS").exists()
    finish(unbroken, running.output)


def test_one_poison_row_of_a_thousand_is_an_error_in_its_place(unbroken, tmp_path):
    rows = some_rows(1000)
    rows[617]["k"] = 999
    source = write_rows(tmp_path / "rows.jsonl", rows)
    scoring = Scoring.start(unbroken.bundle, source, tmp_path / "out", "--shard-rows", "100", "--workers", "2")
    assert scoring.end() == 3
    found = rows_of(tmp_path / "out")
    assert [(place, row["error"]) for place, row in enumerate(found) if row["error"]] == [
        (617, "/k k must be from 1 to 50.")
    ]
    assert [row["user_id"] for row in found] == [f"u{number}" for number in range(1000)]
    assert all(row["items"] for place, row in enumerate(found) if place != 617)


def test_with_errors_stop_a_bad_row_in_a_worker_is_named_by_the_driver(unbroken, tmp_path):
    rows = some_rows(300)
    rows[217]["k"] = 999
    source = write_rows(tmp_path / "rows.jsonl", rows)
    flags = ("--shard-rows", "10", "--workers", "2", "--errors", "stop")
    scoring = Scoring.start(unbroken.bundle, source, tmp_path / "out", *flags)
    assert scoring.end() == 65
    assert f"genrec score: {source}, row 218: /k k must be from 1 to 50.\n" in scoring.said


def test_a_bundle_that_a_worker_refuses_is_refused_by_the_driver(unbroken, tmp_path):
    scoring = Scoring.start(tmp_path, unbroken.source, tmp_path / "out", *FLAGS, "--workers", "2")
    assert scoring.end() == 65
    assert "Traceback" not in scoring.said


def test_a_bundle_replaced_under_the_job_is_never_mixed_in(unbroken, running, tmp_path):
    """A worker that is started late loads what is there then."""
    from tests.fakes import TinyShape, tiny_bundle

    other = tiny_bundle(tmp_path, TinyShape("causal", seed=1))
    link = tmp_path / "bundle"
    link.symlink_to(unbroken.bundle)
    scoring = Scoring.start(link, unbroken.source, tmp_path / "linked", *FLAGS, "--workers", "2")
    until(lambda: parts(scoring.output) >= 2 and len(scoring.workers) == 2)
    link.unlink()
    link.symlink_to(other)
    os.kill(scoring.workers[0], signal.SIGKILL)
    assert scoring.end() == 65
    assert "a worker would not compute what" in scoring.said
    assert ": bundle was tiny " in scoring.said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_fills_up_is_a_sentence_and_nothing_half_is_committed(unbroken, small_disk):
    output, ballast = small_disk / "out", small_disk / "ballast"
    ballast.write_bytes(bytes(800_000))
    flags = (*FLAGS, "--workers", "2")
    scoring = Scoring.start(unbroken.bundle, unbroken.source, output, *flags, log=small_disk.with_suffix(".log"))
    code = scoring.end()
    assert (code, scoring.said.count("No space left on device")) == (65, 1), scoring.said
    assert "Traceback" not in scoring.said
    assert not (output / "_SUCCESS").exists()
    for record in output.glob("_commits/*.json"):
        name = json.loads(record.read_text())["file"]
        assert (output / name).read_bytes() == (unbroken.output / name).read_bytes()
    ballast.unlink()
    finish(unbroken, output)


def test_the_command_as_a_user_starts_it_ends_its_workers_and_their_maker_with_it(unbroken, tmp_path):
    """Nothing of the tests' fork server: a session of its own, killed but for its workers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "genrec", "score", "--bundle", unbroken.bundle, "--input", unbroken.source,
         "--output", tmp_path / "out", *FLAGS, "--workers", "2"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: parts(tmp_path / "out") >= 2 or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        until(lambda: not session(process.pid), timeout=10)
    finally:
        if left := session(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"left over: {left}")
    finish(unbroken, tmp_path / "out")


def session(leader: int) -> list[str]:
    """The processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(stat.parent.name)
    return found
