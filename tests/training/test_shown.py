import numpy as np
import pyarrow as pa
import pytest

from genrec.bundle import load_draft
from genrec.recommender import Recommender
from genrec.semantic_id import Catalog
from tests.training.runs import Run
from training.sequences import load_sequences
from training.shown import HISTORY_SHOWN, shown_examples, title_column


def test_answers_are_shown_with_titles_and_the_hit_marked(finished: Run) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences, catalog = load_sequences(finished.work / "prepare"), recommender.bundle.catalog
    cases = sequences.validation_cases()
    shown = shown_examples(recommender, sequences, cases, 30, seed=1)
    assert shown == shown_examples(recommender, sequences, cases, 30, seed=1)
    assert shown != shown_examples(recommender, sequences, cases, 30, seed=2)
    titles = {catalog.describe(row, ["title"])["title"] for row in range(len(catalog))}
    assert len(shown) == 30
    for one in shown:
        assert 0 < len(one["history"]) <= HISTORY_SHOWN
        assert {one["target"], *one["history"], *(item["title"] for item in one["items"])} <= titles
        assert len(one["items"]) == 10
        assert sum(item["hit"] for item in one["items"]) <= 1
        assert all(item["title"] == one["target"] for item in one["items"] if item["hit"])
    assert any(item["hit"] for one in shown for item in one["items"])
    assert not any(user in str(shown) for user in sequences.user_ids if len(user) > 3)


def test_no_more_are_shown_than_there_are(finished: Run) -> None:
    recommender = Recommender.of(load_draft(finished.work / "assemble" / "draft", dtype="float32"))
    sequences = load_sequences(finished.work / "prepare")
    assert shown_examples(recommender, sequences, [], 5, seed=1) == []
    assert shown_examples(recommender, sequences, sequences.validation_cases(), 0, seed=1) == []


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"year": [1], "Name": ["n"], "text": ["t"]}, "Name"),
        ({"year": [1], "text": ["t"], "more": ["m"]}, "text"),
        ({"year": [1]}, None),
        ({}, None),
    ],
)
def test_a_title_else_the_first_text_names_an_item(columns: dict[str, list[object]], named: str | None) -> None:
    table = pa.table(columns) if columns else pa.table({"x": [1]}).drop_columns(["x"])
    catalog = Catalog(pa.array(["a"]), np.zeros((1, 1), np.int32), np.zeros(1, np.int64), table)
    assert title_column(catalog) == named
