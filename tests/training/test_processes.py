from pathlib import Path

import pytest

from training import processes


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GENREC_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_there_is_one_main_process() -> None:
    assert (processes.rank(), processes.local_rank(), processes.world_size()) == (0, 0, 1)
    assert processes.is_main()


def test_only_the_global_rank_makes_a_process_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert not processes.is_main()
    assert processes.world_size() == 8


def test_the_cache_is_where_the_variable_says_or_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert processes.cache_dir() == Path.home() / ".cache" / "genrec"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert processes.cache_dir() == tmp_path / "genrec"
    monkeypatch.setenv("GENREC_CACHE_DIR", str(tmp_path / "own"))
    assert processes.cache_dir() == tmp_path / "own"
