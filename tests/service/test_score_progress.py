"""Progress: rows of all workers, and when it is time for a line."""

import re

import pytest

from service import score_progress
from service.score_progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(score_progress, "monotonic", lambda: now[0])
    return now


def test_a_line_comes_each_five_seconds_with_the_rows_of_all_shards(clock):
    said: list[str] = []
    progress = Progress(said.append)
    progress.begin(10_000, 2000)
    for shard, rows, at in [(2, 32, 101.0), (3, 32, 104.9), (2, 64, 105.0), (3, 64, 109.0), (3, 936, 110.0)]:
        clock[0] = at
        progress.tell(shard, rows)
    assert said == [
        "2,096 of 10,000 rows, 19.2 rows/s, 0:06:52 left",
        "3,000 of 10,000 rows, 100.0 rows/s, 0:01:10 left",
    ]
    assert all(re.fullmatch(r"[\d,]+ of [\d,]+ rows, [\d.]+ rows/s, \d:\d\d:\d\d left", line) for line in said)
