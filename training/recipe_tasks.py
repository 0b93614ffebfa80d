"""The section tasks of a recipe: what a model is trained on beside the next item, and in which words.

Frozen types with their defaults and the rules that one section can check by itself. Knows neither files nor TOML.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.recipe_data import Section

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]

NEXT_ITEM = "next_item"
AlignmentTask = Literal["title_to_item", "item_to_title", "titles_to_item"]

PLACEHOLDERS: dict[AlignmentTask, tuple[str, str]] = {
    "title_to_item": ("title", "item"),
    "item_to_title": ("item", "title"),
    "titles_to_item": ("titles", "item"),
}
"""What each task gives, and what it asks for. Their order is the order of the tasks in an epoch."""


@dataclass(frozen=True, slots=True)
class Wording:
    """A sentence taken apart. White space before a placeholder belongs to the title that takes its place, as tokenizers
    of text have it; before an item it goes, for an item token has none.

    Attributes:
        opening: Before what is given.
        given_lead: White space before what is given.
        middle: Between what is given and what is asked for.
        asked_lead: White space before what is asked for.
    """

    opening: str
    given_lead: str
    middle: str
    asked_lead: str

    @classmethod
    def of(cls, task: AlignmentTask, text: str) -> "Wording":
        """Take a sentence apart.

        Raises:
            ValueError: It has not the two placeholders of its task, or does not end with the second.
        """
        given, asked = PLACEHOLDERS[task]
        found = re.fullmatch(rf"([^{{}}]*?)(\s*)\{{{given}\}}([^{{}}]*?)(\s*)\{{{asked}\}}", text)
        if found is None:
            raise ValueError(
                f"prompts.{task} = {text!r} must hold {{{given}}} once and then end with {{{asked}}}, without other "
                "braces"
            )
        return cls(*found.groups())


class TaskPrompts(Section):
    """The sentences of the tasks. What stands before the last placeholder is read; a loss is taken on what takes its
    place.

    Attributes:
        title_to_item: Has `{title}` and ends with `{item}`.
        item_to_title: Has `{item}` and ends with `{title}`.
        titles_to_item: Has `{titles}` and ends with `{item}`.
    """

    title_to_item: Text = "The item called {title} is {item}"
    item_to_title: Text = "The item {item} is called {title}"
    titles_to_item: Text = "After {titles} comes {item}"

    @model_validator(mode="after")
    def _placeholders_are_there(self) -> Self:
        for task in PLACEHOLDERS:
            self.wording(task)
        return self

    def wording(self, task: AlignmentTask) -> Wording:
        """The sentence of a task, taken apart."""
        return Wording.of(task, getattr(self, task))


class Tasks(Section):
    """Several tasks in place of the next item alone, for a model that can read text: items and their titles.

    An epoch has `weight · N` examples of a task, at least one if the weight is not 0; N is how many examples there are
    of the next item. Weights count examples, not tokens.

    Attributes:
        next_item: Weight of the next item; at 1 an epoch has each of its examples once.
        title_to_item: Weight of a title and the item that has it.
        item_to_title: Weight of an item and its title.
        titles_to_item: Weight of the titles of a history and the item that followed.
        title_column: Column of the items that holds titles.
        max_title_tokens: Longer titles are cut.
        max_titles: The newest that many titles of a history are read.
        title_separator: Between the titles of a history, before the white space that stands before `{titles}`.
        prompts: The sentences.
    """

    next_item: Weight = 1.0
    title_to_item: Weight = 0.0
    item_to_title: Weight = 0.0
    titles_to_item: Weight = 0.0
    title_column: Text = "title"
    max_title_tokens: Count = 32
    max_titles: Count = 10
    title_separator: str = ";"
    prompts: TaskPrompts = TaskPrompts()

    @model_validator(mode="after")
    def _something_is_trained(self) -> Self:
        if not self.next_item and not self.aligned:
            raise ValueError("tasks gives every task the weight 0; set one, such as next_item = 1.0")
        return self

    @property
    def aligned(self) -> dict[AlignmentTask, float]:
        """Weights of the tasks that read or write titles, those of weight 0 left out."""
        weights: dict[AlignmentTask, float] = {task: getattr(self, task) for task in PLACEHOLDERS}
        return {task: weight for task, weight in weights.items() if weight}
