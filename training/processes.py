"""What the launcher and the shell say to a training process. Knows neither recipes nor stages."""
# ruff: noqa: TID251  (with service/settings.py the only reader of the environment)

import os
from pathlib import Path


def rank() -> int:
    """Global rank of this process, 0 when it was not started by a launcher such as torchrun."""
    return int(os.environ.get("RANK") or 0)


def local_rank() -> int:
    """Rank of this process on its machine: which accelerator it takes."""
    return int(os.environ.get("LOCAL_RANK") or 0)


def world_size() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main() -> bool:
    """Whether this process is the one that writes and prints: global rank 0, not the first of each machine."""
    return rank() == 0


def cache_dir() -> Path:
    """Where downloads stay: ``GENREC_CACHE_DIR``, or the user's cache folder."""
    given = os.environ.get("GENREC_CACHE_DIR")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "genrec"
