import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.score import in_tenths, missing_or_out_of_order, time_plain_loop, users, write_users
from genrec.recommender import Recommender

SPLITS = ["train", "train", "validation", "test"]


def interactions(directory: Path) -> Path:
    """Two users with four items each."""
    rows = {
        "user_id": ["a"] * 4 + ["b"] * 4,
        "item_id": [f"i{number}" for number in range(8)],
        "split": SPLITS * 2,
    }
    pq.write_table(pa.table(rows), directory / "interactions.parquet")
    return directory / "interactions.parquet"


def test_users_have_the_beginnings_of_real_histories_without_the_test_item_and_are_the_same_each_time(tmp_path):
    source = interactions(tmp_path)
    made = list(users(source, 100))
    assert [user for user, _ in made] == [f"u{number}" for number in range(100)]
    whole = (["i0", "i1", "i2"], ["i4", "i5", "i6"])
    assert {tuple(history) for _, history in made} == {tuple(one[:length]) for one in whole for length in (1, 2, 3)}
    assert made == list(users(source, 100))
    write_users(source, 100, tmp_path / "users.parquet")
    assert [(row["user_id"], row["history"]) for row in pq.read_table(tmp_path / "users.parquet").to_pylist()] == made


def test_the_plain_loop_finds_our_items(causal_bundle_path):
    recommender = Recommender.load(causal_bundle_path)
    rows = time_plain_loop(recommender, [[f"i{number}" for number in range(1 + place % 5)] for place in range(9)])
    assert [row["differ"] for row in rows] == [0, 0, 0, 0]


def test_a_user_who_is_missing_or_out_of_place_is_seen(tmp_path):
    def output(*names: str) -> Path:
        pq.write_table(pa.table({"user_id": list(names)}), tmp_path / "part-00000.parquet")
        (tmp_path / "_MANIFEST.json").write_text(json.dumps({"parts": [{"file": "part-00000.parquet"}]}))
        return tmp_path

    assert missing_or_out_of_order(output("u0", "u1"), 2) == 0
    assert missing_or_out_of_order(output("u0"), 2) == 1
    assert missing_or_out_of_order(output("u1", "u0"), 2) == 2


def test_tenths_cover_the_run_and_none_is_empty():
    memory = [(float(second), float(second)) for second in range(25)]
    assert in_tenths(memory)[0][0][1] == 0.0
    assert in_tenths(memory)[-1][-1][1] == 24.0
    assert all(in_tenths(memory[:3]))
