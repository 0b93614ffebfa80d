import pytest

from benchmarks import capacity_plan
from benchmarks.capacity_plan import GIB, Machine, Process, plan
from benchmarks.catalog_memory import CatalogSize, total_bytes

SMALL = CatalogSize(100_000)
PROCESS = Process(answers_per_second=400, utilisation=0.5, cores=2, base_bytes=GIB, bundles=2)
MACHINE = Machine(cores=16, bytes=64 * GIB)


def test_a_machine_holds_what_its_cores_and_its_memory_allow():
    assert MACHINE.holds(PROCESS, SMALL) == 8
    assert Machine(16, 5 * GIB).holds(PROCESS, SMALL) == 3  # 0.9 · 5 GiB / 1.15 GiB
    assert Machine(1, 64 * GIB).holds(PROCESS, SMALL) == 0
    assert PROCESS.bytes(SMALL) == GIB + 2 * total_bytes(SMALL)


def test_without_zones_there_is_a_machine_to_spare():
    found = plan(3_000, SMALL, PROCESS, MACHINE, zones=1)
    assert (found.needed, found.per_machine, found.machines) == (15, 8, 3)
    assert found.spare == pytest.approx(1 - 3_000 / (3 * 8 * 200))


@pytest.mark.parametrize("zones", [2, 3, 4])
@pytest.mark.parametrize("rate", [10, 1_600, 1_601, 100_000])
def test_what_is_left_without_one_zone_answers_the_rate(rate, zones):
    found = plan(rate, SMALL, PROCESS, MACHINE, zones)
    assert found.machines % zones == 0
    left = found.machines * (zones - 1) // zones
    assert left * found.per_machine * PROCESS.planned_per_second >= rate
    fewer = (found.machines - zones) * (zones - 1) // zones
    assert fewer * found.per_machine * PROCESS.planned_per_second < rate


def test_a_catalog_that_no_machine_can_hold_has_no_plan():
    assert plan(10, CatalogSize(10**8), PROCESS, MACHINE, 1) is not None
    assert plan(10, CatalogSize(1_500 * 10**5), PROCESS, MACHINE, 1) is None  # too large for 64 GiB twice
    huge = Machine(16, 10_000 * GIB)
    assert plan(10, CatalogSize(165_191_049), PROCESS, huge, 1) is not None  # 2^31 - 1 bytes of ids of 13
    assert plan(10, CatalogSize(165_191_050), PROCESS, huge, 1) is None


def test_the_command_shows_the_arithmetic_and_a_row_for_each_question(monkeypatch, capsys):
    line = (
        "capacity_plan --answers-per-second 400 --utilisation 0.5 --rate 1e3 1e5 --items 1e5 1e8 1e9 --machine-gib 64"
    )
    monkeypatch.setattr("sys.argv", line.split())
    capacity_plan.main()
    said = capsys.readouterr().out
    assert "400/s × 0.5 = 200/s" in said
    assert "3 zones × ⌈busy / 2⌉" in said
    assert said.count("too many ids") == 2
    [row] = [line.split() for line in said.splitlines() if line.startswith("100,000 ") and " 100,000 " in line[8:]]
    assert row[3:] == ["24", "1,536", "500", "32", "35%"]  # ⌈500 / 32⌉ = 16 busy, 3 · 8 machines
