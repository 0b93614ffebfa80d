"""RecT5 is T5 until its embeddings are trained; what they say reaches generation, and nothing is lost on the way."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

from genrec.decoding.padding import pad_prompts
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import TokenLevels
from genrec.models import load_model
from genrec.rect5 import PLUGIN, RecT5Config, RecT5ForConditionalGeneration, fill
from tests.rect5_bundle import perturb

SIZES = {
    "vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
TOKENS = ItemTokens((tuple(range(4, 16)), tuple(range(16, 28)), tuple(range(28, 40))))
LEVELS = TokenLevels(TOKENS)
SEPARATOR, PREFIX, HIDDEN = 2, 3, 2
HISTORY = torch.tensor([[3, 4, 16, 28, 2, 5, 17, 29, 2, 6, 18, 30, 1], [3, 7, 19, 31, 1, 0, 0, 0, 0, 0, 0, 0, 0]])
MASK = (HISTORY != 0).long()


def inputs(ids: Tensor = HISTORY, mask: Tensor = MASK) -> dict[str, Tensor]:
    return PLUGIN.model_inputs(TOKENS)(ids, mask)


@pytest.fixture
def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return model


@pytest.fixture
def rect5(t5: T5ForConditionalGeneration, tmp_path: Path) -> RecT5ForConditionalGeneration:
    """Read from the T5."""
    t5.save_pretrained(tmp_path / "t5")
    return RecT5ForConditionalGeneration.from_pretrained(tmp_path / "t5").eval()


def logits(model: torch.nn.Module, **extra: Tensor) -> Tensor:
    with torch.no_grad():
        answer = torch.tensor([[0, 8, 20], [0, 9, 21]])
        return model(input_ids=HISTORY, attention_mask=MASK, decoder_input_ids=answer, **extra).logits


def first_step(model: torch.nn.Module, num_beams: int, **extra: Tensor) -> Tensor:
    """Logits of the first token that `generate` generates, one row a history."""
    out = model.generate(
        HISTORY, attention_mask=MASK, num_beams=num_beams, max_new_tokens=2, do_sample=False, output_logits=True,
        return_dict_in_generate=True, **extra,
    )  # fmt: skip
    return out.logits[0][::num_beams]


def test_positions_count_from_the_newest_item_and_types_tell_levels() -> None:
    found = inputs()
    assert found["item_position_ids"].tolist() == [
        [0, 3, 3, 3, 0, 2, 2, 2, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]  # fmt: skip
    assert found["meta_type_ids"].tolist() == [
        [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0], [0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]  # fmt: skip


def test_hidden_items_are_of_no_item_and_do_not_count() -> None:
    ids = torch.tensor([[3, 4, 16, 28, HIDDEN, HIDDEN, HIDDEN, 6, 18, 30]])
    found = inputs(ids, torch.ones_like(ids))
    assert found["item_position_ids"].tolist() == [[0, 2, 2, 2, 0, 0, 0, 1, 1, 1]]
    assert found["meta_type_ids"].tolist() == [[0, 1, 2, 3, 0, 0, 0, 1, 2, 3]]


ITEM = st.tuples(st.integers(4, 15), st.integers(16, 27), st.integers(28, 39))


@given(st.lists(st.lists(ITEM, min_size=1, max_size=6), min_size=1, max_size=4), st.booleans())
def test_neither_padding_nor_older_items_move_a_position(
    histories: list[list[tuple[int, int, int]]], left: bool
) -> None:
    prompts = [[PREFIX] + [token for item in history for token in (*item, SEPARATOR)] for history in histories]
    ids, mask, _ = pad_prompts(prompts, left=left)
    found = fill(ids, mask, LEVELS)
    for row, history in enumerate(histories):
        positions = found["item_position_ids"][row][mask[row] == 1].tolist()
        count = len(history)
        expected = [0] + [place for item in range(count) for place in (*[count - item] * 3, 0)]
        assert positions == expected
    assert not found["item_position_ids"][mask == 0].any() and not found["meta_type_ids"][mask == 0].any()


def test_read_from_a_t5_it_gives_what_t5_gives(
    t5: T5ForConditionalGeneration, rect5: RecT5ForConditionalGeneration
) -> None:
    assert torch.equal(logits(rect5, **inputs()), logits(t5))
    assert torch.equal(first_step(rect5, 3, **inputs()), first_step(t5, 3))
    assert rect5.config.model_type == "rect5"


@pytest.mark.parametrize("num_beams", [1, 4])
def test_generation_starts_from_the_logits_of_forward_with_the_ids_and_from_others_without(
    rect5: RecT5ForConditionalGeneration, num_beams: int
) -> None:
    perturb(rect5)
    with_ids, without = logits(rect5, **inputs())[:, 0], logits(rect5)[:, 0]
    assert (with_ids - without).abs().max() > 1.0
    torch.testing.assert_close(first_step(rect5, num_beams, **inputs()), with_ids)
    torch.testing.assert_close(first_step(rect5, num_beams), without)


@pytest.mark.parametrize("name", PLUGIN.inputs)
def test_each_input_matters(rect5: RecT5ForConditionalGeneration, name: str) -> None:
    perturb(rect5)
    others = {key: value for key, value in inputs().items() if key != name}
    assert (logits(rect5, **inputs()) - logits(rect5, **others)).abs().max() > 0.1


def test_what_belongs_to_nothing_adds_nothing_even_after_training(rect5: RecT5ForConditionalGeneration) -> None:
    perturb(rect5)
    nothing = {name: torch.zeros_like(HISTORY) for name in PLUGIN.inputs}
    assert torch.equal(logits(rect5, **nothing), logits(rect5))
    rect5(input_ids=HISTORY, attention_mask=MASK, labels=torch.tensor([[8, 20], [9, 21]]), **inputs()).loss.backward()
    for embedding in (rect5.encoder.item_positions, rect5.encoder.meta_types):
        assert not embedding.weight.grad[0].any() and embedding.weight.grad[1].any()


def test_items_beyond_the_last_position_share_it(rect5: RecT5ForConditionalGeneration) -> None:
    perturb(rect5)
    far = {**inputs(), "item_position_ids": inputs()["item_position_ids"] * 1_000}
    last = {**inputs(), "item_position_ids": inputs()["item_position_ids"].clamp(max=1) * 128}
    assert torch.equal(logits(rect5, **far), logits(rect5, **last))


def test_saved_and_loaded_it_is_the_same_and_its_matrices_are_still_one(
    rect5: RecT5ForConditionalGeneration, tmp_path: Path
) -> None:
    perturb(rect5).save_pretrained(tmp_path / "rect5")
    PLUGIN.register()
    for loaded in (
        load_model(tmp_path / "rect5", "seq2seq"), AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "rect5").eval()
    ):  # fmt: skip
        assert type(loaded) is RecT5ForConditionalGeneration
        assert torch.equal(logits(loaded, **inputs()), logits(rect5, **inputs()))
        shared = loaded.shared.weight.data_ptr()
        assert loaded.encoder.embed_tokens.weight.data_ptr() == shared == loaded.lm_head.weight.data_ptr()


def test_from_scratch_its_weights_are_drawn_as_those_of_t5() -> None:
    """transformers skips T5's own rules in classes from elsewhere, unless they say that they know its ways."""
    wide = {**SIZES, "d_model": 64, "d_ff": 128}
    t5, rect5 = T5ForConditionalGeneration(T5Config(**wide)), RecT5ForConditionalGeneration(RecT5Config(**wide))
    others = dict(rect5.named_parameters())
    for name, parameter in t5.named_parameters():
        if parameter.numel() > 1_000:
            assert others[name].std().item() == pytest.approx(parameter.std().item(), rel=0.2), name
    assert not rect5.encoder.item_positions.weight.any() and not rect5.encoder.meta_types.weight.any()


def test_the_encoder_can_be_given_embeddings_or_its_own_outputs(rect5: RecT5ForConditionalGeneration) -> None:
    perturb(rect5)
    expected = logits(rect5, **inputs())
    answer = torch.tensor([[0, 8, 20], [0, 9, 21]])
    with torch.no_grad():
        embedded = rect5(inputs_embeds=rect5.shared(HISTORY), attention_mask=MASK, decoder_input_ids=answer, **inputs())
        outputs = rect5.encoder(HISTORY, attention_mask=MASK, **inputs())
        encoded = rect5(encoder_outputs=outputs, attention_mask=MASK, decoder_input_ids=answer)
    assert torch.equal(embedded.logits, expected) and torch.equal(encoded.logits, expected)
