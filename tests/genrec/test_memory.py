"""How much memory is free: the machine's account, the limit of a container, whichever is less."""

from pathlib import Path

import pytest

from genrec.memory import free_memory

MIB = 2**20


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal:       {4000 * 1024} kB\nMemAvailable:   {1000 * 1024} kB\nSwapFree: 0 kB\n")
    return file


def group(root: Path, limit: str, used: int, inactive_file: int) -> Path:
    root.mkdir()
    (root / "memory.max").write_text(limit + "\n")
    (root / "memory.current").write_text(f"{used * MIB}\n")
    (root / "memory.stat").write_text(f"anon 1\ninactive_file {inactive_file * MIB}\nactive_file 9\n")
    return root


def test_the_machine_says_what_is_available(meminfo: Path, tmp_path: Path) -> None:
    assert free_memory("cpu", meminfo=meminfo, cgroup=tmp_path / "none") == 1000 * MIB


def test_a_container_has_what_its_limit_leaves_and_the_cache_counts_as_free(meminfo: Path, tmp_path: Path) -> None:
    cgroup = group(tmp_path / "group", str(500 * MIB), used=400, inactive_file=50)
    assert free_memory("cpu", meminfo=meminfo, cgroup=cgroup) == 150 * MIB


def test_a_limit_above_what_the_machine_has_is_none(meminfo: Path, tmp_path: Path) -> None:
    cgroup = group(tmp_path / "group", str(3000 * MIB), used=400, inactive_file=50)
    assert free_memory("cpu", meminfo=meminfo, cgroup=cgroup) == 1000 * MIB


def test_no_limit_is_none(meminfo: Path, tmp_path: Path) -> None:
    cgroup = group(tmp_path / "group", "max", used=400, inactive_file=50)
    assert free_memory("cpu", meminfo=meminfo, cgroup=cgroup) == 1000 * MIB


@pytest.mark.parametrize("content", ["", "MemTotal: 1 kB\n", "MemAvailable: much\n", "nonsense"])
def test_where_nobody_can_say_it_is_not_known(tmp_path: Path, content: str) -> None:
    (tmp_path / "meminfo").write_text(content)
    assert free_memory("cpu", meminfo=tmp_path / "meminfo", cgroup=tmp_path / "none") is None
    assert free_memory("cpu", meminfo=tmp_path / "absent", cgroup=tmp_path / "none") is None


def test_this_machine_can_say() -> None:
    free = free_memory("cpu")
    assert free is None or free > 0
