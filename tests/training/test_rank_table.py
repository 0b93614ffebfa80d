from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from tests.training.runs import Run
from training.cases import all_cases
from training.metrics import UNRANKED, Ranks
from training.rank_table import FILE, RankTable, read_ranks, write_ranks
from training.sequences import load_sequences


def ranks(*better: int) -> Ranks:
    return Ranks(np.array(better, dtype=np.int64), np.ones(len(better), dtype=np.int64))


def table(users: list[str], **methods: Ranks) -> RankTable:
    numbers = np.arange(1, len(users) + 1, dtype=np.int64)
    return RankTable(users, numbers, 10 * numbers, methods)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    test = table(["b", "a", "b"], model=ranks(0, UNRANKED, 7), markov=Ranks(np.array([1, 2, 3]), np.array([4, 5, 6])))
    validation = table(["c"], model=ranks(UNRANKED))
    write_ranks(tmp_path, {"validation": validation, "test": test})
    found = read_ranks(tmp_path)
    assert list(found) == ["validation", "test"]
    assert list(found["validation"].ranks) == ["model"]
    assert list(found["test"].ranks) == ["model", "markov"]
    for split, written in (("test", test), ("validation", validation)):
        assert found[split].users == written.users
        assert found[split].history_lengths.tolist() == written.history_lengths.tolist()
        assert found[split].target_counts.tolist() == written.target_counts.tolist()
        for method, expected in written.ranks.items():
            assert found[split].ranks[method].better.tolist() == expected.better.tolist()
            assert found[split].ranks[method].tied.tolist() == expected.tied.tolist()


def test_a_target_in_no_list_is_null_for_other_readers(tmp_path: Path) -> None:
    write_ranks(tmp_path, {"test": table(["a", "b"], model=ranks(3, UNRANKED))})
    assert pq.read_table(tmp_path / FILE)["better: model"].to_pylist() == [3, None]


def test_a_directory_without_ranks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no ranks"):
        read_ranks(tmp_path)


@given(users=st.lists(st.sampled_from("abc"), min_size=1, max_size=9), data=st.data())
def test_some_of_the_cases_keep_everything_of_theirs(users: list[str], data: st.DataObject) -> None:
    whole = table(users, model=ranks(*range(len(users))))
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(users), max_size=len(users))))
    part = whole.only(chosen)
    places = np.flatnonzero(chosen).tolist()
    assert part.users == [users[place] for place in places]
    assert part.ranks["model"].better.tolist() == places
    assert part.target_counts.tolist() == [10 * (place + 1) for place in places]
    numbers = whole.user_numbers
    assert all((numbers[a] == numbers[b]) == (users[a] == users[b]) for a in places for b in places)


def test_a_further_method_stands_first() -> None:
    assert list(table(["a"], markov=ranks(1)).with_ranks({"model": ranks(0)}).ranks) == ["model", "markov"]


def test_a_case_knows_its_user_its_history_and_its_targets_count(finished: Run) -> None:
    sequences = load_sequences(finished.work / "prepare")
    cases = all_cases(sequences, "test")[:5]
    made = RankTable.of(sequences, cases, {})
    counts = sequences.training_counts()
    for place, case in enumerate(cases):
        assert made.users[place] == sequences.user_ids[case.user]
        assert made.history_lengths[place] == len(case.history)
        assert made.target_counts[place] == counts[case.target]
