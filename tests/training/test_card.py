from tests.training.report.told import EVIL, MANIFEST, PREPARED, metrics
from training.card import model_card


def test_the_card_says_what_it_is_how_good_and_what_it_is_not() -> None:
    card = model_card(MANIFEST, metrics(), PREPARED)
    assert card.startswith("# films\n")
    assert "genrec serve --bundle films" in card
    assert "- semantic IDs: 2 levels of 64, 32 codes" in card
    assert "- history: the newest 50 items, oldest first" in card
    assert "- base model: llama from scratch" in card
    assert "- seed: 5" in card
    assert "- split: 68,000 train, 1,000 test" in card
    assert "torch" not in card
    assert "## How good it is: test, 1,234 users" in card
    assert "| this bundle | 0.2500 [0.2000, 0.3000] | 0.2500" in card
    assert "| SASRec | 0.4000 [0.3500, 0.4500] |" in card
    assert "| SASRec | -0.1500 [-0.2000, -0.1000] |" in card
    assert "## What it is not" in card
    assert "17 targets never occur in training" in card


def test_every_row_of_a_table_is_as_wide_as_its_head() -> None:
    blocks = model_card(MANIFEST, metrics(), PREPARED).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert [len(rows) for rows in tables] == [2 + 4, 2 + 3]
    for rows in tables:
        # the separator has no space before its first bar
        assert len({row.strip().strip("|").count("|") for row in rows}) == 1


def test_without_baselines_there_is_no_table_of_differences() -> None:
    card = model_card(MANIFEST, metrics(baselines={}, differences={}), {})
    assert "less" not in card.partition("## What it is not")[0].replace("unless", "")
    assert "- split:" not in card


def test_what_users_named_ends_neither_its_line_nor_its_cell() -> None:
    manifest = MANIFEST.model_copy(update={"provenance": {"dataset": f"{EVIL}\n# a | b"}})
    card = model_card(manifest, metrics(baselines={"a|b": metrics()["test"]}, differences={}), PREPARED)
    assert "<script" not in card
    assert "\n# a" not in card
    assert "| a\\|b |" in card


def test_a_refitted_bundle_says_so_first() -> None:
    card = model_card(MANIFEST, metrics(refit={"note": "Measured on another."}), PREPARED)
    assert "**Measured on another.**" in card.partition("##")[0]
