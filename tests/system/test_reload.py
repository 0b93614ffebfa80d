"""The bundle is changed under clients, refused, rolled back and found again: no request fails, no answer is mixed.

What an answer must be is known from asking each bundle in this process beforehand (`tests.system.pair`).
"""

import asyncio
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from genrec.bundle import layout
from tests.fakes import reseal
from tests.genrec.bundle.damage import RESEALED, WEIGHTS
from tests.genrec.bundle.test_shelf import HOSTILE
from tests.system.faulty import TOKEN, Faulty, administered, begun_faulty, faulty, run
from tests.system.pair import REQUESTS, Pair, make_pair
from tests.system.raw import resident_mib
from tests.system.wire import Lines, Reply, p99

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def own_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A shelf to put damaged bundles on."""
    return make_pair(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def shared(own_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with faulty(own_pair, tmp_path_factory.mktemp("shared"), GENREC_MAX_QUEUE_ROWS="600") as server:
        yield server
        assert server.stop() == 0


@pytest.fixture
def server(shared: Faulty) -> Iterator[Faulty]:
    """Serves `a`, before and after."""
    yield shared
    shared.fault()
    if current(shared) != "a":
        assert shared.reload("a").status_code == 200
    shared.well()


def current(server: Faulty) -> str:
    """The name of the bundle that is served; what is listed, what is said of it and what answers are one."""
    name = server.admin.get("/admin/bundles").json()["current"]
    version = server.pair.versions[name]
    assert server.get("/info").json()["bundle"]["version"] == server.ask().version == version
    return name


@dataclass
class Clients:
    """What clients in a thread of their own were answered."""

    replies: list[tuple[int, Reply]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def check(self, pair: Pair) -> None:
        assert self.replies
        assert {reply.status for _, reply in self.replies} == {200}
        assert all(pair.right(reply, which) for which, reply in self.replies)


@contextmanager
def clients(server: Faulty, number: int) -> Iterator[Clients]:
    """So many that ask all the time; at the end every answer is that of the bundle which it names."""
    seen = Clients()

    async def ask_all_the_time() -> None:
        lines = Lines(server.port)

        async def client(which: int) -> None:
            while not seen.over.is_set():
                which = (which + 1) % len(REQUESTS)
                seen.replies.append((which, await lines.ask(REQUESTS[which])))

        await asyncio.gather(*map(client, range(number)))
        lines.close()

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(run, ask_all_the_time())
        try:
            yield seen
        finally:
            seen.over.set()
        asking.result(60)
    seen.check(server.pair)


# --- swaps under load -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "number"), [(10, 8), pytest.param(50, 16, marks=[pytest.mark.soak, pytest.mark.timeout(400)])]
)
def test_bundles_are_swapped_under_clients_without_an_error_a_mixture_or_a_leak(
    server: Faulty, record_property: Callable[[str, object], None], times: int, number: int
) -> None:
    resident, quiet, swapping = [], [], []
    with clients(server, number) as seen:
        for swap in range(times):
            so_far = len(seen.replies)
            time.sleep(0.3)
            between = len(seen.replies)
            reply = server.reload("ba"[swap % 2])
            assert reply.status_code == 200, reply.text
            assert reply.json()["bundle"]["version"] == server.pair.versions["ba"[swap % 2]]
            quiet += [one for _, one in seen.replies[so_far:between]]
            swapping += [one for _, one in seen.replies[between:]]
            resident.append(resident_mib(server.process.pid))
    versions = Counter(reply.version for _, reply in seen.replies)
    assert set(versions) == {server.pair.versions["a"], server.pair.versions["b"]}
    assert max(resident[3:]) < 1.15 * resident[2], resident
    told = f"p99 {p99(quiet) * 1e3:.0f} ms between swaps, {p99(swapping) * 1e3:.0f} ms during; {resident[-1]:.0f} MiB"
    record_property("swaps", told)
    print(f"\n{times} swaps under {number} clients, {len(seen.replies)} answers: {told}")


def test_who_asks_after_a_reload_was_acknowledged_is_answered_by_the_new_one(server: Faulty) -> None:
    for name in "baba":
        assert server.reload(name).status_code == 200
        assert server.ask().version == server.pair.versions[name]


def test_search_and_the_tree_follow_the_swap(server: Faulty) -> None:
    def found() -> tuple[int, int, int]:
        return (
            server.get("/v1/items?q=i43").json()["total"],
            server.get("/v1/tree").json()["items"],
            server.get("/v1/items/i43").status_code,
        )

    assert found() == (0, 40, 404)
    assert server.reload("c").status_code == 200
    assert found() == (1, 44, 200)
    assert server.admin.post("/admin/rollback", json={}).status_code == 200
    assert found() == (0, 40, 404)


def test_items_that_are_off_stay_off(server: Faulty) -> None:
    def answered() -> tuple[int, set[str]]:
        body = {"history": ["i1"], "k": 40, "exclude_history": False}
        answer = httpx.post(f"{server.url}/recommend", json=body).json()
        return answer["catalog_version"], {item["item_id"] for item in answer["items"]}

    everything = {f"i{number}" for number in range(40)}
    version = server.admin.post("/admin/catalog", json={"off": ["i3", "i30"]}).json()["catalog_version"]
    try:
        for name in "bab":
            assert server.reload(name).status_code == 200
            assert answered() == (version, everything - {"i3", "i30"})
    finally:
        server.admin.post("/admin/catalog", json={"on": ["i3", "i30"]})
    assert answered() == (version + 1, everything)


# --- what is refused --------------------------------------------------------------------------------------------------

FILES = (
    "README.md", "catalog/ids.marisa", "catalog/items.marisa", "catalog/items.parquet", "golden.jsonl",
    "model/config.json", "model/generation_config.json", WEIGHTS, "model/tokenizer.json", layout.MANIFEST,
)  # fmt: skip


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


OF_BYTES: dict[str, Callable[[Path], object]] = {
    "a byte short": lambda file: file.write_bytes(file.read_bytes().removesuffix(b"\n")[:-1]),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "a bit flipped": lambda file: file.write_bytes(flipped(file.read_bytes())),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "missing": lambda file: file.unlink(),
    "renamed": lambda file: file.rename(file.with_name("renamed.json")),
    "joined by another": lambda file: file.with_name("extra.json").write_text("{}"),
}


def test_each_kind_of_damaged_bundle_is_refused_with_its_reason_while_the_old_one_serves(server: Faulty) -> None:
    damaged, before = server.pair.root / "damaged", server.get("/info").json()
    refused = 0
    with clients(server, 4):
        for file in FILES:
            for kind, damage in OF_BYTES.items():
                shutil.copytree(server.pair.root / "b", damaged)
                damage(damaged / file)
                reply = server.reload("damaged")
                shutil.rmtree(damaged)
                assert reply.status_code == 422, (file, kind, reply.text)
                assert reply.json()["code"] == "bundle_refused"
                reason = reply.json()["detail"]
                assert str(server.pair.root) not in reason
                named = "extra.json" if kind == "joined by another" and file != layout.MANIFEST else file
                assert named in reason or file == layout.MANIFEST, (file, kind, reason)
                refused += 1
        assert server.get("/info").json() == before
    assert server.metric('genrec_reloads_total{outcome="refused"}') >= refused


@pytest.mark.parametrize(
    "kinds", [list(RESEALED)[::12], pytest.param(list(RESEALED), marks=pytest.mark.soak)], ids=["some", "all"]
)
def test_a_bundle_with_right_hashes_and_wrong_content_is_refused_too(server: Faulty, kinds: Sequence[str]) -> None:
    damaged, before = server.pair.root / "damaged", server.get("/info").json()
    with clients(server, 2):
        for kind in kinds:
            shutil.copytree(server.pair.root / "b", damaged)
            changes = RESEALED[kind][0](damaged)
            reseal(damaged, **(changes if isinstance(changes, dict) else {}))
            reply = server.reload("damaged")
            shutil.rmtree(damaged)
            assert (reply.status_code, reply.json()["code"]) == (422, "bundle_refused"), (kind, reply.text)
        assert server.get("/info").json() == before


def test_a_bundle_that_would_not_fit_beside_the_one_that_is_served_is_refused(server: Faulty) -> None:
    server.fault(free_bytes=1000)
    reply = server.reload("b")
    assert (reply.status_code, reply.json()["code"]) == (422, "bundle_refused")
    assert "of memory on cpu beside the one that is served" in reply.json()["detail"]
    assert current(server) == "a"


def test_what_is_no_name_of_a_bundle_is_refused_over_http_too(server: Faulty) -> None:
    sent = [name for name in HOSTILE if isinstance(name, str | int | list | dict | None)]
    assert len(sent) >= 60
    outside = shutil.copytree(server.pair.root / "b", server.pair.root.parent / "outside")
    shutil.copytree(server.pair.root / "b", server.pair.root / "one")  # which many of the names come close to
    (server.pair.root / "file").write_text("{}")
    (server.pair.root / "out").symlink_to(server.pair.root.parent)
    (server.pair.root / "in").symlink_to(server.pair.a)
    os.mkfifo(server.pair.root / "fifo")
    try:
        for name in (*sent, "file", "out", "in", "fifo", "absent"):
            begin = time.monotonic()
            content = json.dumps({"bundle": name}).encode()
            reply = server.admin.post("/admin/reload", content=content, headers={"content-type": "application/json"})
            assert reply.status_code in (400, 422), (name, reply.text)
            assert time.monotonic() - begin < 5
            assert len(reply.content) < 2000
        assert current(server) == "a"
    finally:
        for name in ("file", "out", "in", "fifo"):
            (server.pair.root / name).unlink()
        shutil.rmtree(outside)
        shutil.rmtree(server.pair.root / "one")


# --- many at once, back, and started again ----------------------------------------------------------------------------


def test_of_many_reloads_at_once_one_is_made_and_the_last_that_was_counts(server: Faulty) -> None:
    def ask_for(number: int) -> list[tuple[int, str]]:
        done = []
        for turn in range(4):
            name = "ab"[(number + turn) % 2]
            reply = httpx.post(
                server.admin.base_url.join("/admin/reload"),
                json={"bundle": name},
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=60,
            )
            done.append((reply.status_code, name))
            assert reply.status_code == 200 or reply.json()["code"] == "busy"
        return done

    with clients(server, 2), ThreadPoolExecutor(16) as pool:
        outcomes = [outcome for done in pool.map(ask_for, range(16)) for outcome in done]
    assert {status for status, _ in outcomes} == {200, 409}
    swapped = [line for line in server.logged("request") if line["route"] == "/admin/reload" and line["status"] == 200]
    assert current(server) == swapped[-1]["current"]


def test_a_rollback_goes_to_the_one_before_and_back(server: Faulty) -> None:
    server.reload("a")
    server.reload("b")
    for name in "aba":
        reply = server.admin.post("/admin/rollback", json={})
        assert (reply.status_code, reply.json()["current"]) == (200, name)
        assert current(server) == name


def test_what_was_reloaded_is_served_after_a_restart_until_the_settings_change(pair: Pair, tmp_path: Path) -> None:
    with faulty(pair, tmp_path) as server:
        assert server.admin.post("/admin/rollback", json={}).status_code == 409
        assert server.reload("b").status_code == 200
        server.process.kill()
        server.process.wait()
    with faulty(pair, tmp_path) as server:
        assert current(server) == "b"
        assert server.admin.post("/admin/rollback", json={}).json()["current"] == "a"
        assert server.reload("b").status_code == 200
        assert server.stop() == 0
    with faulty(pair, tmp_path, bundle="c") as server:
        assert current(server) == "c"
        assert server.stop() == 0
    (tmp_path / "state" / "bundle").write_text("not this")
    process = begun_faulty(pair.a, log=tmp_path / "log", **administered(tmp_path))
    assert process.wait(60) == 65
    assert "is damaged" in (tmp_path / "log").read_text()
