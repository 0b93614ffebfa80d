"""A model gets the fastest decoder that gives what the model gives, or none."""

import pytest
import torch

from genrec.decoding.decoders import decoder_of
from genrec.decoding.device_trie import DeviceTrie
from genrec.decoding.forward import ForwardDecoder
from genrec.decoding.llama import LlamaDecoder
from genrec.decoding.t5 import T5Decoder
from tests.genrec.decoding.small_models import LONGEST_PROMPT, UNREADABLE, prefix_of, random_trie, small_model

TRIE = random_trie(100, (8, 8, 8))
LONGEST = LONGEST_PROMPT + TRIE.num_levels


def decoder(name: str, longest: int = LONGEST, dtype: torch.dtype = torch.float32) -> object:
    model = small_model(name, dtype=dtype)
    return decoder_of(model, prefix_of(model), DeviceTrie.of(TRIE, "cpu").tokens, longest)


@pytest.mark.parametrize(
    ("name", "kind"), [("t5", T5Decoder), ("llama", LlamaDecoder), ("mistral", LlamaDecoder), ("phi", ForwardDecoder)]
)
def test_a_model_is_read_by_the_decoder_for_it(name: str, kind: type) -> None:
    assert isinstance(decoder(name), kind)


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_model_that_nothing_reads_exactly_gets_none(name: str) -> None:
    assert decoder(name) is None


@pytest.mark.parametrize("name", ["mistral", "gemma2", "phi3"])
def test_a_window_matters_only_where_it_is_shorter_than_what_is_read(name: str) -> None:
    window = LONGEST_PROMPT + 5
    assert decoder(name, longest=window) is not None
    assert decoder(name, longest=window + 1) is None


def test_t5_in_float16_is_left_to_transformers() -> None:
    assert decoder("t5", dtype=torch.float16) is None
    assert isinstance(decoder("t5", dtype=torch.bfloat16), T5Decoder)
