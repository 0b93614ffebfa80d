import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from genrec.decoding.scoring import path_log_probs
from genrec.errors import TrainingError
from genrec.history import HistoryEncoder
from genrec.item_tokens import spell_all
from genrec.models import load_model, special_ids
from tests.training.families import FAMILIES, PADDED, SIZES, TIED, WORDS, Grown, write_base, write_grown
from training import prune as prune_module
from training.corpus import Corpus
from training.proof import proving_examples
from training.prune import prune, renumber
from training.vocabulary import decoder_prefix, is_tied

ITEMS = sum(SIZES)
START = 3


def corpus_of(grown: Grown) -> Corpus:
    nothing: Any = None  # histories and titles play no part
    prefix = decoder_prefix(grown.path, grown.architecture)
    return Corpus(nothing, grown.tokens, grown.encoder, grown.architecture, prefix, mask_id=2, seed=1, text=nothing)


@pytest.fixture(scope="module", params=FAMILIES)
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A model of each family, with 40 words that no item is made of; read it, do not change it."""
    return write_grown(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def pruned(grown: Grown, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, int]]:
    path = tmp_path_factory.mktemp("pruned") / "model"
    return path, dict(prune(corpus_of(grown), grown.path, path))


def ids_with_roles(grown: Grown) -> list[int]:
    """Pad, end, unknown, start, of which the tokenizer gives each a role."""
    return sorted(special_ids(grown.load(), AutoTokenizer.from_pretrained(grown.path)))


def test_special_tokens_the_prompts_and_the_items_are_kept_in_their_order(
    grown: Grown, pruned: tuple[Path, dict[int, int]]
) -> None:
    path, renumbered = pruned
    assert list(renumbered) == sorted({*ids_with_roles(grown), START, *range(WORDS + 4, WORDS + 4 + ITEMS)})
    assert list(renumbered.values()) == list(range(len(renumbered)))
    model = load_model(path, grown.architecture)
    assert model.config.vocab_size == len(renumbered) == 4 + ITEMS
    assert [len(side().weight) for side in (model.get_input_embeddings, model.get_output_embeddings)] == [4 + ITEMS] * 2


def test_the_tokenizer_gives_the_tokens_that_are_left_their_new_ids(
    grown: Grown, pruned: tuple[Path, dict[int, int]]
) -> None:
    path, renumbered = pruned
    before, after = (AutoTokenizer.from_pretrained(one) for one in (grown.path, path))
    assert len(after) == len(renumbered)
    for old, new in renumbered.items():
        assert after.convert_ids_to_tokens(new) == before.convert_ids_to_tokens(old)
    assert after.special_tokens_map == before.special_tokens_map
    tokens = renumber(grown.tokens, renumbered)
    assert after.convert_tokens_to_ids(spell_all(SIZES)) == [token for level in tokens.token_ids for token in level]
    item = [ids[code] for ids, code in zip(tokens.token_ids, (1, 2, 0), strict=True)]
    assert after("<s> <a_1><b_2><c_0>").input_ids == [3, *item]
    model = load_model(path, grown.architecture)
    assert special_ids(model, after) == {renumbered[old] for old in ids_with_roles(grown)}
    assert model.config.pad_token_id == after.pad_token_id == 0


def test_hugging_face_reads_it_and_ties_are_as_they_were(grown: Grown, pruned: tuple[Path, dict[int, int]]) -> None:
    auto = AutoModelForSeq2SeqLM if grown.architecture == "seq2seq" else AutoModelForCausalLM
    model, report = auto.from_pretrained(pruned[0], output_loading_info=True)
    assert not any(report.values())
    assert is_tied(model) == (grown.family in TIED)
    if grown.architecture == "seq2seq":
        assert model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight is model.shared.weight


@torch.no_grad()
def log_probs(model: PreTrainedModel, encoder: HistoryEncoder, prefix: tuple[int, ...]) -> torch.Tensor:
    """``(H, N, L)``: of every item after two histories, level by level."""
    rows = range(len(encoder.paths))
    return torch.stack(
        [
            path_log_probs(
                model.eval(), [encoder.encode(history)] * len(rows), [encoder.target(row) for row in rows], prefix
            )
            for history in ([3], [5, 9, 2])
        ]
    )


def test_scores_rise_by_the_share_of_the_tokens_that_are_gone_and_nothing_else_changes(
    grown: Grown, pruned: tuple[Path, dict[int, int]]
) -> None:
    """At each prefix all children rise by the same: their order, and what is renormalised among them, stays."""
    path, renumbered = pruned
    small = HistoryEncoder(
        type(grown.encoder.prompt)(prefix_ids=(renumbered[START],), max_history_items=5),
        renumber(grown.tokens, renumbered).paths(codes_of(grown)),
    )
    before = log_probs(grown.load(), grown.encoder, decoder_prefix(grown.path, grown.architecture))
    after = log_probs(load_model(path, grown.architecture), small, decoder_prefix(path, grown.architecture))
    rise = after - before
    assert (rise > 0.01).all()
    codes = codes_of(grown)
    for level in range(len(SIZES)):
        for prefix in {tuple(row[:level]) for row in codes.tolist()}:
            among = [row for row, code in enumerate(codes.tolist()) if tuple(code[:level]) == prefix]
            shares = rise[:, among, level]
            assert torch.allclose(shares, shares[:, :1].expand_as(shares), atol=1e-4)


def codes_of(grown: Grown) -> Any:
    place = {token: code for level in grown.tokens.token_ids for code, token in enumerate(level)}
    return torch.tensor([[place[int(token)] for token in path] for path in grown.encoder.paths]).numpy()


def test_special_tokens_are_found_wherever_they_stand_and_keep_their_meaning(tmp_path: Path) -> None:
    base = write_base("llama", tmp_path / "base")
    words = AutoTokenizer.from_pretrained(base)
    words.pad_token, words.eos_token = "word9", "word30"
    words.save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    ids = {"pad_token_id": 13, "eos_token_id": [34, 20], "bos_token_id": 1_000}  # no tokenizer gives the last
    (base / "config.json").write_text(json.dumps(config | ids))
    one = write_grown("llama", tmp_path, base)
    renumbered = prune(corpus_of(one), one.path, tmp_path / "pruned")
    assert list(renumbered)[:6] == [2, 3, 13, 20, 34, WORDS + 4]
    found = load_model(tmp_path / "pruned", "causal").config
    assert (found.pad_token_id, found.eos_token_id, found.bos_token_id) == (2, [4, 3], None)
    after = AutoTokenizer.from_pretrained(tmp_path / "pruned")
    assert (after.pad_token, after.pad_token_id, after.eos_token, after.eos_token_id) == ("word9", 2, "word30", 4)
    generation = json.loads((tmp_path / "pruned" / "generation_config.json").read_text())
    assert (generation["pad_token_id"], generation["eos_token_id"]) == (2, [4, 3])


def test_rows_beyond_the_tokenizer_are_left_out_too(tmp_path: Path) -> None:
    base = write_base("qwen3", tmp_path / "base", rows=2 * PADDED)
    one = write_grown("qwen3", tmp_path, base)
    renumbered = prune(corpus_of(one), one.path, tmp_path / "pruned")
    assert load_model(tmp_path / "pruned", "causal").config.vocab_size == len(renumbered) == 4 + ITEMS


def _shift(model: PreTrainedModel, kept: list[int]) -> None:
    model.resize_token_embeddings(len(kept), mean_resizing=False)


def _forget_the_head(model: PreTrainedModel, kept: list[int]) -> None:
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[: len(kept)] = weight[kept]
    model.resize_token_embeddings(len(kept), mean_resizing=False)


@pytest.mark.parametrize("wrong", [_shift, _forget_the_head])
def test_rows_that_are_not_those_of_their_tokens_fail_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[PreTrainedModel, list[int]], None]
) -> None:
    one = write_grown("llama", tmp_path)
    monkeypatch.setattr(prune_module, "_keep_rows", wrong)
    with pytest.raises(TrainingError, match="differs from the live one"):
        prune(corpus_of(one), one.path, tmp_path / "pruned")


def test_the_proof_looks_at_every_item_token(grown: Grown) -> None:
    examples = proving_examples(grown.encoder, grown.architecture)
    assert {token for index in range(len(examples)) for token in examples[index]["input_ids"]} >= set(grown.token_ids)
