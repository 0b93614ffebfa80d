"""Items switched off and on in a real service: under load, through a kill, and on a listener of their own.

Every request asks for as many items as there are, so an answer is exactly what is on: the client, which knows what it
switched, can tell from the items alone which version an answer was made under.
"""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.system.server import Server, begun, started

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

TOKEN = "correct-horse-battery-staple"
ITEMS = frozenset(f"i{number}" for number in range(40))
NUM_CHANGES, NUM_CLIENTS = 50, 4


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    return {
        "GENREC_STATE_DIR": str(tmp_path / "state"),
        "GENREC_ADMIN_LISTEN": "127.0.0.1:0",
        "GENREC_ADMIN_TOKEN_FILE": str(tmp_path / "token"),
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def clients(server: Server) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """One of the service, one of its administrators."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        httpx.Client(base_url=server.url, timeout=30) as main,
        httpx.Client(base_url=server.admin_url, timeout=30, headers=headers) as admin,
    ):
        yield main, admin


@dataclass
class Shop:
    """What the client knows: which items are off at each version that was acknowledged."""

    off: dict[int, frozenset[str]] = field(default_factory=lambda: {0: frozenset()})
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    @property
    def version(self) -> int:
        return max(self.off)

    def next_change(self) -> tuple[list[str], list[str], frozenset[str]]:
        """Items to switch off and on, and what is then off. It differs from what was off at every version before."""
        now = self.off[self.version]
        while True:
            flipped = self.dice.sample(sorted(ITEMS), 10)
            off, on = [one for one in flipped if one not in now], [one for one in flipped if one in now]
            then = (now | set(off)) - set(on)
            if then not in self.off.values() and len(then) < len(ITEMS):
                return off, on, then

    def change(self, admin: httpx.Client) -> None:
        off, on, then = self.next_change()
        reply = admin.post("/admin/catalog", json={"off": off, "on": on})
        assert reply.status_code == 200, reply.text
        answer = reply.json()
        assert answer == {
            "catalog_version": self.version + 1, "items_off": len(then), "unknown_items_off": 0, "unknown_items": 0,
        }  # fmt: skip
        self.off[answer["catalog_version"]] = then


def ask(main: httpx.Client, history: list[str]) -> tuple[int, frozenset[str]]:
    body = {"history": history, "k": len(ITEMS), "exclude_history": False, "fields": []}
    reply = main.post("/recommend", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()["catalog_version"], frozenset(item["item_id"] for item in reply.json()["items"])


def ask_batch(main: httpx.Client, history: list[str]) -> tuple[int, frozenset[str]]:
    one = {"history": history, "k": len(ITEMS), "exclude_history": False, "fields": []}
    reply = main.post("/v1/recommend/batch", json={"requests": [one] * 3})
    assert reply.status_code == 200, reply.text
    results = reply.json()["results"]
    seen = {(each["catalog_version"], frozenset(item["item_id"] for item in each["items"])) for each in results}
    assert len(seen) == 1, "a batch is answered under one version"
    return seen.pop()


def test_fifty_changes_under_load_fail_no_request_and_mix_no_two_versions(
    causal_bundle_path: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    shop, stop = Shop(), threading.Event()
    answers: list[tuple[int, int, frozenset[str]]] = []

    def customer(server: Server, number: int) -> None:
        dice = random.Random(number)
        ask_one: Callable[[httpx.Client, list[str]], tuple[int, frozenset[str]]] = ask_batch if number == 0 else ask
        with httpx.Client(base_url=server.url, timeout=30) as main:
            while not stop.is_set():
                acknowledged = shop.version
                known = [] if number == 1 else dice.sample(sorted(ITEMS), 3)  # without any: the popular ones
                answers.append((acknowledged, *ask_one(main, known)))

    with (
        started(causal_bundle_path, log=tmp_path / "log", **environment) as server,
        clients(server) as (_, admin),
        ThreadPoolExecutor(NUM_CLIENTS) as pool,
    ):
        customers = [pool.submit(customer, server, number) for number in range(NUM_CLIENTS)]
        try:
            for _ in range(NUM_CHANGES):
                so_far = len(answers)
                shop.change(admin)
                deadline = time.monotonic() + 5
                while len(answers) < so_far + NUM_CLIENTS and time.monotonic() < deadline:
                    time.sleep(0.005)
        finally:
            stop.set()
        for one in customers:
            one.result(30)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    for acknowledged, version, items in answers:
        assert version >= acknowledged, "what was acknowledged counts for every later request"
        assert items == ITEMS - shop.off[version]
    assert len({version for _, version, _ in answers}) > NUM_CHANGES / 2


@pytest.mark.parametrize("seed", [1])
def test_what_was_acknowledged_is_there_after_a_kill_in_the_middle_of_changes(
    causal_bundle_path: Path, tmp_path: Path, environment: dict[str, str], seed: int
) -> None:
    shop, dice = Shop(), random.Random(seed)
    for round_number in range(2):
        with started(causal_bundle_path, log=tmp_path / f"log{round_number}", **environment) as server:
            survived(server, shop)
            killer = threading.Timer(dice.uniform(0.05, 0.4), server.process.kill)
            killer.start()
            with clients(server) as (_, admin):
                changes_until_killed(admin, shop)
            killer.join()
    with started(causal_bundle_path, log=tmp_path / "log", **environment) as server:
        survived(server, shop)
    assert shop.version > 10, "or nothing was shown"


def changes_until_killed(admin: httpx.Client, shop: Shop) -> None:
    """Change after change; the one that was under way when the service died may have happened or not."""
    while True:
        dice = shop.dice.getstate()
        try:
            shop.change(admin)
        except httpx.TransportError:
            shop.dice.setstate(dice)  # the same change comes next
            return


def survived(server: Server, shop: Shop) -> None:
    with clients(server) as (main, admin):
        version, items = ask(main, ["i1"])
        assert admin.get("/admin/catalog").json()["catalog_version"] == version
        if version == shop.version + 1:
            shop.off[version] = shop.next_change()[2]
        assert version == shop.version
        assert items == ITEMS - shop.off[version]


def test_each_listener_has_its_own_paths_and_both_end_with_the_process(
    causal_bundle_path: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    with started(causal_bundle_path, log=tmp_path / "log", **environment) as server, clients(server) as (main, admin):
        assert admin.get("/admin/catalog").json()["catalog_version"] == 0
        assert httpx.get(f"{server.admin_url}/admin/catalog").status_code == 401
        for path in ("/recommend", "/health", "/metrics", "/docs"):
            assert admin.get(path).status_code == 404
            assert httpx.get(f"{server.admin_url}{path}").status_code == 401
        there = server.admin_url.removeprefix("http://")
        for headers in ({}, {"Host": there}, {"X-Forwarded-Port": there.rpartition(":")[2], "X-Forwarded-Host": there}):
            reply = main.get("/admin/catalog", headers={"Authorization": f"Bearer {TOKEN}", **headers})
            assert reply.status_code == 404
        assert begun_and_ended(causal_bundle_path, tmp_path, environment) == (75, "held by another service")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        for url in (server.url, server.admin_url):
            with pytest.raises(httpx.TransportError):
                httpx.get(url)
    assert TOKEN not in (tmp_path / "log").read_text()
    state = tmp_path / "state" / "items-off"
    state.write_text("not this")
    assert begun_and_ended(causal_bundle_path, tmp_path, environment) == (65, "is damaged")


def begun_and_ended(bundle: Path, tmp_path: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code of a server that does not come to serve, and which of the two reasons it gave in one line."""
    log = tmp_path / "refused"
    code = begun(bundle, log=log, **environment).wait(60)
    [line] = log.read_text().splitlines()
    return code, next(reason for reason in ("held by another service", "is damaged") if reason in line)
