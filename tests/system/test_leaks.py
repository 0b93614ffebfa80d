"""Memory of a process that has served and reloaded for a while: it is flat, and a leak would be seen."""

import asyncio
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.faulty import Faulty, faulty, run
from tests.system.pair import REQUESTS, Pair
from tests.system.raw import resident_mib
from tests.system.wire import Lines

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

CLIENTS, SAMPLES = 8, 30
FLAT = 0.02
LEAK_BYTES = 1 << 20


def growth(resident: Sequence[float]) -> float:
    """By how much the last third of a run holds more than the middle one, as a ratio; the first third warms up."""
    third = len(resident) // 3
    return statistics.median(resident[-third:]) / statistics.median(resident[third : 2 * third]) - 1


async def worn(server: Faulty, requests: int, reloads: int) -> list[float]:
    """Ask, and reload in between; the memory at SAMPLES moments of it, MiB."""
    lines, resident = Lines(server.port), []

    async def client(number: int) -> None:
        for turn in range(requests // SAMPLES // CLIENTS):
            which = (number + turn) % len(REQUESTS)
            assert server.pair.right(await lines.ask(REQUESTS[which]), which)

    for sample in range(SAMPLES):
        await asyncio.gather(*map(client, range(CLIENTS)))
        if sample * reloads // SAMPLES < (sample + 1) * reloads // SAMPLES:
            reply = await asyncio.to_thread(server.reload, "ba"[sample % 2])
            assert reply.status_code == 200, reply.text
        resident.append(resident_mib(server.process.pid))
    lines.close()
    return resident


@pytest.mark.parametrize(
    ("requests", "reloads"),
    [(1_200, 6), pytest.param(20_000, 30, marks=[pytest.mark.soak, pytest.mark.timeout(400)])],
)
def test_memory_is_flat_over_requests_and_reloads_and_a_leak_is_seen(
    pair: Pair, tmp_path: Path, requests: int, reloads: int
) -> None:
    with faulty(pair, tmp_path) as server:
        resident = run(worn(server, requests, reloads))
        print(f"\n{requests} requests, {reloads} reloads: {resident[0]:.0f} to {resident[-1]:.0f} MiB")
        assert growth(resident) < FLAT, resident
        server.fault(leaks=LEAK_BYTES)
        leaking = run(worn(server, 1_200, 6))
        print(f"with a leak: {leaking[0]:.0f} to {leaking[-1]:.0f} MiB")
        assert growth(leaking) > FLAT, leaking
        server.fault()
        assert server.stop() == 0
