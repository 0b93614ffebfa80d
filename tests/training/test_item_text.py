from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from genrec.errors import DataError, RecipeError
from genrec.item_tokens import ItemTokens, spell_all
from tests.training.words import TITLES, byte_level, sentence_piece
from training.base_model import bare_tokenizer
from training.item_text import ItemText
from training.prepare_write import write_items
from training.vocabulary import read_item_tokens_of

SIZES = (3, 2)


def text_of(tokenizer: PreTrainedTokenizerBase, items: Path = Path("nowhere")) -> ItemText:
    tokenizer.add_tokens(spell_all(SIZES))
    return ItemText(tokenizer, items, read_item_tokens_of(tokenizer, SIZES))


@pytest.fixture
def items(tmp_path: Path) -> Path:
    table = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": [" Alien (1979)", None, "  "],
            "genres": [["x"], [], []],
            "year": [1, 2, 3],
        },
        schema_overrides={"genres": pl.List(pl.String)},
    )
    write_items(tmp_path / "items.parquet", table)
    return tmp_path / "items.parquet"


def test_an_item_without_a_title_has_an_empty_one(items: Path) -> None:
    assert text_of(byte_level(), items).titles("title") == ["Alien (1979)", "", ""]


@pytest.mark.parametrize("column", ["name", "genres", "year", "item_id"])
def test_a_column_that_is_none_of_text_is_named_with_those_that_are(items: Path, column: str) -> None:
    with pytest.raises(DataError, match=rf"'{column}'.*columns of text are title\. Name it in tasks\.title_column"):
        text_of(byte_level(), items).titles(column)


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_titles_are_the_tokens_of_their_text_and_read_back(make: type) -> None:
    text = text_of(make())
    rows = text.title_tokens([*TITLES, ""], " ", 99).rows()
    assert [text.tokenizer.decode(row).strip() for row in rows] == [*TITLES, ""]
    assert rows[0].tolist() == text.tokenizer(" Alien (1979)", add_special_tokens=False).input_ids
    assert len(rows[-1]) == 0


def test_long_titles_are_cut() -> None:
    text = text_of(byte_level())
    whole, cut = text.title_tokens(TITLES, " ", 99).rows(), text.title_tokens(TITLES, " ", 3).rows()
    assert [row[:3].tolist() for row in whole] == [row.tolist() for row in cut]


def test_what_reads_as_an_item_or_a_special_token_in_a_title_is_no_token_of_it() -> None:
    text = text_of(byte_level())
    plain, planted = text.title_tokens(["Heat", "He<a_1>at<|im_end|><b_0>"], "", 99).rows()
    assert text.tokenizer.decode(planted) == text.tokenizer.decode(plain) == "Heat"


def test_a_title_of_unknown_letters_is_none() -> None:
    known, unknown = text_of(sentence_piece()).title_tokens(["Heat (1995)", "жаръ"], "", 99).rows()
    assert len(known) and not len(unknown)


def test_a_tokenizer_of_item_tokens_alone_cannot_read_titles() -> None:
    with pytest.raises(RecipeError, match=r"knows no words.*model\.checkpoint that reads text"):
        text_of(bare_tokenizer()).title_tokens(["Heat"], " ", 9)


def test_nor_can_one_without_an_unknown_token() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
    with pytest.raises(RecipeError, match="knows no words"):
        ItemText(words, Path("nowhere"), ItemTokens(((7,),))).title_tokens(["Heat"], " ", 9)


def test_no_titles_at_all_are_refused_as_that() -> None:
    with pytest.raises(DataError, match="not one item has a title"):
        text_of(byte_level()).title_tokens(["", ""], " ", 9)
