from typing import Any

from genrec.bundle import Manifest, PromptPieces
from training.card import model_card, report_page

CELL = {"value": 0.25, "low": 0.2, "high": 0.3}
METRICS: dict[str, Any] = {
    "test": {"recall@5": CELL, "ndcg@5": {"value": 0.125, "low": 0.1, "high": 0.15}},
    "baselines": {name: {"recall@5": CELL, "ndcg@5": CELL} for name in ("popularity", "markov_with_validation")},
    "users": {"test": 1234, "validation": 1234},
    "protocol": {"ranking": "full catalog", "num_beams": 20},
}  # fmt: skip
MANIFEST = Manifest(
    name="films",
    architecture="causal",
    num_levels=2,
    codebook_sizes=(64, 32),
    item_token_ids=(tuple(range(64)), tuple(range(64, 96))),
    prompt=PromptPieces(max_history_items=50),
    decoder_prefix_ids=(),
    dtype="float32",
    provenance={"base_model": "llama from scratch", "dataset": "<b>own</b>", "libraries": {"torch": "2.13.0"}},
)


def test_the_card_says_what_it_is_how_good_and_what_it_is_not() -> None:
    card = model_card(MANIFEST, METRICS)
    assert card.startswith("# films\n")
    assert "genrec serve --bundle films" in card
    assert "- semantic IDs: 2 levels of 64, 32 codes" in card
    assert "- history: the newest 50 items, oldest first" in card
    assert "- base model: llama from scratch" in card
    assert "torch" not in card
    assert "## How good it is: test, 1,234 users" in card
    assert "| this bundle | 0.2500 [0.2000, 0.3000] | 0.1250 [0.1000, 0.1500] |" in card
    assert "| markov with validation | 0.2500" in card
    assert "## What it is not" in card


def test_every_row_of_the_cards_table_is_as_wide_as_its_head() -> None:
    rows = [line for line in model_card(MANIFEST, METRICS).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert {row.rstrip(" |").count("|") for row in rows} == {3}


def test_what_users_named_cannot_become_markup_in_the_report() -> None:
    page = report_page(
        MANIFEST.model_copy(update={"name": "a-b"}), METRICS, {"<i>prepare</i>": "| <script>alert(1)</script> |"}
    )
    assert "<script>" not in page and "<i>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<td>0.1250 [0.1000, 0.1500]</td>" in page
    assert "<th>recall@5</th><th>ndcg@5</th>" in page
    assert page.count("<tr>") == 1 + 3
