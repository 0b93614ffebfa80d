"""How many machines a rate of recommendations takes, with every step of the arithmetic, for numbers of your own.

`python -m benchmarks.capacity_plan --rate 1e5 --items 1e7 --answers-per-second 400` measures nothing. A process answers
so many a second, as measured on its cores with your model; how full it may be kept is its utilisation. Machines hold as
many processes as their cores and their memory allow, and there are enough of them without one, or without one zone.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from benchmarks.catalog_memory import CatalogSize, total_bytes
from benchmarks.report import table

GIB = 1 << 30


@dataclass(frozen=True)
class Process:
    """One `genrec serve`.

    Attributes:
        answers_per_second: the most that it was measured to answer.
        utilisation: the part of that it is asked for at the peak of the day.
        cores: that it was measured on.
        base_bytes: of Python, PyTorch and the model, without a catalog.
        bundles: in memory at once: 2 while one is reloaded in place, 1 where processes are replaced instead.
    """

    answers_per_second: float
    utilisation: float
    cores: int
    base_bytes: float
    bundles: int

    @property
    def planned_per_second(self) -> float:
        """What it is asked for at the peak."""
        return self.answers_per_second * self.utilisation

    def bytes(self, catalog: CatalogSize) -> float:
        """Memory that it takes."""
        return self.base_bytes + self.bundles * total_bytes(catalog)


@dataclass(frozen=True)
class Machine:
    """What processes run on.

    Attributes:
        cores: all of it.
        bytes: of memory; a tenth is left to the system and its cache of files.
    """

    cores: int
    bytes: float

    def holds(self, process: Process, catalog: CatalogSize) -> int:
        """How many processes fit; 0 where not even one does, or none can hold the catalog at all."""
        if not catalog.loads:
            return 0
        return min(self.cores // process.cores, int(0.9 * self.bytes // process.bytes(catalog)))


@dataclass(frozen=True)
class Plan:
    """What a rate takes.

    Attributes:
        rate: recommendations a second at the peak.
        catalog: what each process holds.
        needed: processes that answer the rate.
        per_machine: processes on a machine.
        machines: of all zones together.
        spare: the part of the planned rate that is left when everything is up.
    """

    rate: float
    catalog: CatalogSize
    needed: int
    per_machine: int
    machines: int
    spare: float


def plan(rate: float, catalog: CatalogSize, process: Process, machine: Machine, zones: int) -> Plan | None:
    """The plan for one rate; None where no machine can hold the catalog.

    Args:
        rate: recommendations a second at the peak.
        catalog: the items.
        process: what one answers and takes.
        machine: what they run on.
        zones: that machines are spread over evenly, one of which may be lost; 1 for no zones, and one machine to spare.
    """
    per_machine = machine.holds(process, catalog)
    if not per_machine:
        return None
    needed = ceil(rate / process.planned_per_second)
    busy = ceil(needed / per_machine)
    machines = busy + 1 if zones == 1 else zones * ceil(busy / (zones - 1))
    spare = 1 - rate / (machines * per_machine * process.planned_per_second)
    return Plan(rate, catalog, needed, per_machine, machines, spare)


def row(rate: float, catalog: CatalogSize, process: Process, machine: Machine, zones: int) -> dict[str, object]:
    """For the table."""
    found = plan(rate, catalog, process, machine, zones)
    cells: dict[str, object] = {
        "recommendations/s": f"{rate:,.0f}",
        "items": f"{catalog.num_items:,}",
        "GiB a process": process.bytes(catalog) / GIB,
    }
    if found is None:
        return cells | {"machines": "too large" if catalog.loads else "too many ids"}
    return cells | {
        "machines": f"{found.machines:,}",
        "cores": f"{found.machines * machine.cores:,}",
        "processes": f"{found.needed:,}",
        "on a machine": found.per_machine,
        "spare": f"{found.spare:.0%}",
    }


def steps(process: Process, machine: Machine, zones: int) -> Sequence[str]:
    """The arithmetic in words."""
    most, gib = process.answers_per_second, 0.9 * machine.bytes / GIB
    all_machines = "busy + 1" if zones == 1 else f"{zones} zones × ⌈busy / {zones - 1}⌉, enough without one zone"
    return [
        f"planned of a process: {most:g}/s × {process.utilisation:g} = {process.planned_per_second:g}/s",
        "processes: ⌈rate / planned⌉",
        f"memory of a process: {process.base_bytes / GIB:.2f} GiB + {process.bundles} × the catalog",
        f"on a machine: the smaller of {machine.cores} / {process.cores} cores and {gib:g} GiB / memory, rounded down",
        f"busy: ⌈processes / on a machine⌉; machines: {all_machines}",
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity_plan", description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, nargs="+", default=[1e3, 1e5, 1e7], help="recommendations a second")
    parser.add_argument("--items", type=float, nargs="+", default=[1e5, 1e7, 1e9], help="of the catalog")
    parser.add_argument("--answers-per-second", type=float, required=True, help="the most of one process, measured")
    parser.add_argument("--utilisation", type=float, default=0.6, help="part of it that is planned with")
    parser.add_argument("--cores", type=int, default=2, help="of a process, those that it was measured on")
    parser.add_argument("--base-mib", type=float, default=600.0, help="of a process without a catalog, model included")
    parser.add_argument("--bundles", type=int, default=2, help="in memory at once: 2 to reload in place, 1 to replace")
    parser.add_argument("--codebooks", type=int, nargs="+", default=[256] * 4, help="codes a level")
    parser.add_argument("--id-bytes", type=float, default=13.0, help="of an item id")
    parser.add_argument("--metadata-bytes", type=float, default=60.0, help="of an item's other columns")
    parser.add_argument("--machine-cores", type=int, default=64)
    parser.add_argument("--machine-gib", type=float, default=256.0)
    parser.add_argument(
        "--zones", type=int, default=3, help="one of which may be lost; 1: one machine to spare instead"
    )
    given = parser.parse_args()
    process = Process(given.answers_per_second, given.utilisation, given.cores, given.base_mib * 2**20, given.bundles)
    machine = Machine(given.machine_cores, given.machine_gib * GIB)
    catalogs = [
        CatalogSize(int(items), given.codebooks, id_bytes=given.id_bytes, metadata_bytes=given.metadata_bytes)
        for items in given.items
    ]
    print("\n".join(steps(process, machine, given.zones)), end="\n\n")
    print(table([row(rate, catalog, process, machine, given.zones) for catalog in catalogs for rate in given.rate]))


if __name__ == "__main__":
    main()
