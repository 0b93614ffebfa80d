"""The engines by name."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from genrec.decoding.beam import BeamEngine
from genrec.decoding.decoders import decoder_of
from genrec.decoding.device_trie import DeviceTrie
from genrec.decoding.engine import Engine
from genrec.decoding.generate import GenerateEngine
from genrec.decoding.graphs import graphs_for
from genrec.decoding.limits import LimitTables
from genrec.errors import InputError
from genrec.model_inputs import NO_INPUTS, ModelInputs
from genrec.trie import ItemTrie

ENGINES = ("beam", "generate")


def check_engine(name: str) -> None:
    """Refuse a name that is none, before anything is loaded.

    Raises:
        InputError: there is no such engine.
    """
    if name not in ("auto", *ENGINES):
        raise InputError(f"engine {name!r} is unknown; use auto, {' or '.join(ENGINES)}.")


def make_engine(
    name: str,
    model: PreTrainedModel,
    trie: ItemTrie,
    *,
    decoder_prefix_ids: Sequence[int],
    length_penalty: float,
    longest_prompt: int,
    inputs: ModelInputs = NO_INPUTS,
) -> Engine:
    """The engine of that name; auto is beam wherever the model can be read by it.

    Args:
        name: auto, beam or generate.
        model: in eval mode, on its device.
        trie: the items that exist.
        decoder_prefix_ids: what the decoder starts with; empty for a decoder-only model.
        length_penalty: a score is divided by ``L ** length_penalty``.
        longest_prompt: the most tokens a prompt can have.
        inputs: what the model takes beside ids and mask.

    Raises:
        InputError: there is no such engine, or beam was asked for and cannot read this model.
    """
    check_engine(name)
    if name != "generate":
        on_device = DeviceTrie.of(trie, model.device)
        longest = longest_prompt + trie.num_levels
        decoder = decoder_of(model, decoder_prefix_ids, on_device.tokens, longest, inputs)
        if decoder is not None:
            tables = LimitTables(trie, model.device)
            return BeamEngine(decoder, on_device, tables, model.device, length_penalty, graphs_for(model.device))
        if name == "beam":
            raise InputError(
                f"engine 'beam' cannot read a model of type {model.config.model_type!r} with these prompts; "
                "use --engine generate, or auto."
            )
    return GenerateEngine(model, trie, tuple(decoder_prefix_ids), length_penalty, inputs)
