"""How much memory is free, where a bundle is to be loaded beside another."""

from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: str, *, meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Bytes that can still be taken on a device; None where nobody can say.

    Args:
        device: cpu, cuda or cuda:N.
        meminfo: Linux's account of the machine's memory.
        cgroup: the control group of this process, whose limit a container has. Version 2.
    """
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    known = [free for free in (_machine(meminfo), _group(cgroup)) if free is not None]
    return min(known, default=None)


def _machine(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _group(cgroup: Path) -> int | None:
    try:
        limit, used = (cgroup / "memory.max").read_text(), int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # The cache of files is given up when memory is asked for.
        return int(limit) - used + int(stat["inactive_file"])
    except (OSError, KeyError, ValueError):  # no such group, or "max": no limit
        return None
