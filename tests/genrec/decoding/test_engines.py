"""An engine is made by name; auto is beam wherever it can read the model."""

import pytest

from genrec.decoding.engine import Query
from genrec.decoding.engines import check_engine, make_engine
from genrec.errors import InputError
from tests.genrec.decoding.small_models import (
    UNREADABLE,
    everything,
    found,
    prefix_of,
    prompts,
    random_trie,
    small_model,
)

TRIE = random_trie(100, (8, 8, 8))


def engine(kind: str, name: str, longest_prompt: int = 40):  # type: ignore[no-untyped-def]
    model = small_model(name)
    return make_engine(
        kind, model, TRIE, decoder_prefix_ids=prefix_of(model), length_penalty=1.0, longest_prompt=longest_prompt
    )


@pytest.mark.parametrize(("kind", "chosen"), [("auto", "beam"), ("beam", "beam"), ("generate", "generate")])
@pytest.mark.parametrize("name", ["t5", "llama", "gpt2"])
def test_a_model_that_can_be_read_is_served_by_the_engine_asked_for(kind: str, chosen: str, name: str) -> None:
    assert engine(kind, name).name == chosen


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_model_that_cannot_be_read_is_served_by_generate_or_not_at_all(name: str) -> None:
    assert engine("auto", name).name == "generate"
    with pytest.raises(
        InputError, match=r"engine 'beam' cannot read a model of type .* use --engine generate, or auto"
    ):
        engine("beam", name)


def test_a_shorter_prompt_makes_a_window_readable() -> None:
    assert engine("auto", "mistral-window").name == "generate"
    assert engine("auto", "mistral-window", longest_prompt=37).name == "beam"


def test_an_engine_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match="engine 'greedy' is unknown; use auto, beam or generate"):
        check_engine("greedy")


@pytest.mark.parametrize("name", ["mamba", "bloom", "gemma2-window"])
def test_what_generate_serves_alone_is_searched(name: str) -> None:
    queries = [Query(prompt, everything(TRIE)) for prompt in prompts((5, 5), 28)]
    assert [len(found(outcome).rows) for outcome in engine("auto", name).search(queries, 7)] == [7, 7]
