import dataclasses

import pytest

from genrec.bundle import load_draft
from genrec.errors import DataError
from genrec.recommender import Recommender
from tests.training.bench import RememberingProgress
from tests.training.runs import Run
from training.ask import answer_one, ask, check_catalog
from training.metrics import UNRANKED
from training.sequences import load_sequences


@pytest.fixture
def recommender(finished: Run) -> Recommender:
    return Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))


def test_lists_are_what_each_case_is_answered_alone(finished: Run, recommender: Recommender) -> None:
    sequences = load_sequences(finished.work / "prepare")
    cases = sequences.test_cases()[:7]
    asked = ask(recommender, sequences, cases, 5, 3, RememberingProgress(), "test")
    for case, items in zip(cases, asked.lists, strict=True):
        answer = answer_one(recommender, sequences, case, 5)
        assert [sequences.item_ids[row] for row in items] == [item.item_id for item in answer.items]
        assert not set(items.tolist()) & set(case.history.tolist())


def test_items_that_the_data_lack_are_no_hit_and_items_that_the_bundle_lacks_are_counted(
    finished: Run, recommender: Recommender
) -> None:
    sequences = load_sequences(finished.work / "prepare")
    cases = sequences.test_cases()[:40]
    before = ask(recommender, sequences, cases, 20, 8, RememberingProgress(), "test")
    hit = next(case.target for case, rank in zip(cases, before.ranks.better, strict=True) if rank < 20)
    ids = [f"new {item_id}" if row == hit else item_id for row, item_id in enumerate(sequences.item_ids)]
    renamed = dataclasses.replace(sequences, item_ids=ids)
    assert check_catalog(recommender, renamed) == 1
    asked = ask(recommender, renamed, cases, 20, 8, RememberingProgress(), "test")
    assert any(-1 in items for items in asked.lists)
    assert not any(hit in items for items in asked.lists)
    assert all(rank == UNRANKED for rank, case in zip(asked.ranks.better, cases, strict=True) if case.target == hit)


def test_a_bundle_of_other_data_is_refused(finished: Run, recommender: Recommender) -> None:
    sequences = load_sequences(finished.work / "prepare")
    other = dataclasses.replace(sequences, item_ids=[f"other {item_id}" for item_id in sequences.item_ids])
    with pytest.raises(DataError, match=r"knows 0 of the \d+ items"):
        ask(recommender, other, other.test_cases(), 5, 8, RememberingProgress(), "test")
