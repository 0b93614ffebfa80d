import pytest
from pydantic import ValidationError

from training.recipe_tasks import PLACEHOLDERS, TaskPrompts, Tasks, Wording


def test_a_sentence_is_taken_apart_and_white_space_goes_with_the_title_that_follows_it() -> None:
    apart = Wording.of("title_to_item", "The film {title} is\n{item}")
    assert apart == Wording(opening="The film", given_lead=" ", middle=" is", asked_lead="\n")
    assert Wording.of("item_to_title", "{item}: {title}") == Wording("", "", ":", " ")
    assert Wording.of("titles_to_item", "{titles}{item}") == Wording("", "", "", "")


@pytest.mark.parametrize(
    "text",
    ["{title}", "{item} is {title}", "{title} is {item}.", "{title} or {title} is {item}", "a {b} {title} {item}", "}"],
)
def test_a_sentence_without_its_two_placeholders_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"must hold \{title\} once and then end with \{item\}"):
        TaskPrompts(title_to_item=text)


def test_the_sentences_that_are_not_given_are_sentences() -> None:
    for task in PLACEHOLDERS:
        assert TaskPrompts().wording(task).opening


def test_tasks_of_weight_nought_are_left_out_and_all_of_them_cannot_be() -> None:
    assert Tasks(title_to_item=0.5).aligned == {"title_to_item": 0.5}
    assert Tasks(next_item=0, item_to_title=1, titles_to_item=2).aligned == {"item_to_title": 1, "titles_to_item": 2}
    with pytest.raises(ValidationError, match="every task the weight 0"):
        Tasks(next_item=0)


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan"), "1"])
def test_a_weight_is_a_number_from_nought(weight: object) -> None:
    with pytest.raises(ValidationError):
        Tasks.model_validate({"title_to_item": weight})
