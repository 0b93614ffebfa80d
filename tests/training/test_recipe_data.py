import pytest
from pydantic import ValidationError

from tests.training.bench import recipe

OWN = {"interactions": {"path": "x.csv"}, "items": {"path": "y.csv"}}


def test_data_come_from_a_name_or_from_files_never_both_never_none() -> None:
    with pytest.raises(ValidationError, match="no data"):
        recipe({})
    with pytest.raises(ValidationError, match="dataset excludes"):
        recipe({"dataset": "toy", **OWN})


def test_a_minimum_rating_needs_a_rating_column() -> None:
    with pytest.raises(ValidationError, match=r"interactions\.rating"):
        recipe({**OWN, "minimum_rating": 4.0})


def test_shares_must_leave_something_to_train_on() -> None:
    with pytest.raises(ValidationError, match="below 1"):
        recipe({"dataset": "toy", "validation_share": 0.5, "test_share": 0.5})


@pytest.mark.parametrize("name", ["item_id", "popularity", "code_0"])
def test_a_metadata_column_may_not_take_a_name_of_the_catalog(name: str) -> None:
    with pytest.raises(ValidationError, match="uses that name itself"):
        recipe({**OWN, "items": {"path": "y.csv", "metadata": {name: "string"}}})


def test_a_separator_belongs_to_lists_only() -> None:
    with pytest.raises(ValidationError, match="separator"):
        recipe({**OWN, "items": {"path": "y.csv", "metadata": {"title": {"separator": "|"}}}})


def test_the_short_form_of_a_metadata_column_is_its_type() -> None:
    items = recipe({**OWN, "items": {"path": "y.csv", "metadata": {"year": "integer"}}}).prepare.items
    assert items is not None
    assert items.metadata is not None
    assert items.metadata["year"].type == "integer"


def test_a_listed_part_has_defaults_and_an_unlisted_table_is_refused() -> None:
    embed = recipe(embed={"parts": ["tfidf", "collaborative"]}).embed
    assert embed.collaborative is not None
    assert embed.encoder is None
    with pytest.raises(ValidationError, match="parts does not list"):
        recipe(embed={"parts": ["tfidf"], "collaborative": {"window": 3}})
    with pytest.raises(ValidationError, match="twice"):
        recipe(embed={"parts": ["tfidf", "tfidf"]})


def test_a_part_that_needs_a_path_says_so() -> None:
    with pytest.raises(ValidationError, match=r"embed\.encoder\.model"):
        recipe(embed={"parts": ["encoder"]})
    with pytest.raises(ValidationError, match=r"embed\.given\.path"):
        recipe(embed={"parts": ["given"]})
