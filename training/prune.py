"""A model without the tokens that recommending never meets: fewer rows, other ids, the same logits for those that stay.

A language model knows 49,000 or 150,000 tokens of text; a bundle whose prompts are item tokens meets a handful of them.
The score of an item is a log-softmax over all tokens that there are, so it changes, see docs/training.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from genrec.item_tokens import ItemTokens
from genrec.models import load_model, load_tokenizer
from training.corpus import Corpus
from training.proof import Probe
from training.vocabulary import generation_ids, save_checkpoint

Renumbered = Mapping[int, int]
"""Old token id -> new one, for those that are kept; in the same order."""


def prune(corpus: Corpus, source: Path, target: Path) -> Renumbered:
    """Write the checkpoint `source` with only the special tokens, those of the prompt, and those of items.

    Args:
        corpus: says which tokens the prompt and the items have.
        source: a merged checkpoint.
        target: where the smaller one goes.

    Raises:
        TrainingError: loaded again it gives other logits than the larger one for a token that stayed.
    """
    model, tokenizer = load_model(source, corpus.architecture), load_tokenizer(source)
    kept = _kept(corpus, model, tokenizer)
    renumbered = {old: new for new, old in enumerate(kept)}
    probe = Probe.of(model, corpus.encoder, corpus.architecture, corpus.model_inputs)
    names = tokenizer.convert_ids_to_tokens(kept)
    items = [names[renumbered[old]] for old in _ids(corpus.tokens)]
    _keep_rows(model, kept)
    for key, value in model.config.to_dict().items():
        if key.endswith("_token_id") and value is not None:
            setattr(model.config, key, _new(value, renumbered))
    model.config.use_cache = True
    model.generation_config = generation_ids(model.config)
    save_checkpoint(model, _tokenizer(names, items, tokenizer), target)
    _renumber(probe, renumbered).require(load_model(target, corpus.architecture))
    return renumbered


def renumber(tokens: ItemTokens, renumbered: Renumbered) -> ItemTokens:
    """Item tokens under their new ids."""
    return ItemTokens(tuple(tuple(renumbered[token] for token in level) for level in tokens.token_ids))


def _kept(corpus: Corpus, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that stay, ascending. Special tokens are those with a role; T5's hundred sentinels have none here."""
    roles = [token for token in tokenizer.special_tokens_map.values() if isinstance(token, str)]
    named: set[int] = set(tokenizer.convert_tokens_to_ids(roles))
    for key, value in model.config.to_dict().items():
        if key.endswith("_token_id") and value is not None:
            named |= set(_all(value))
    prompt = corpus.encoder.prompt
    pieces = {*prompt.prefix_ids, *prompt.item_separator_ids, *prompt.suffix_ids, *corpus.decoder_prefix_ids}
    known = set(tokenizer.get_vocab().values())  # a config may name ids that no tokenizer gives
    return sorted((named & known) | pieces | set(_ids(corpus.tokens)))


@torch.no_grad()
def _keep_rows(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """The kept rows to the front, the rest cut off; what was tied stays tied, as `load_model` noted it."""
    weights = {id(side().weight): side().weight for side in (model.get_input_embeddings, model.get_output_embeddings)}
    for weight in weights.values():
        weight[: len(kept)] = weight[list(kept)]
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        bias[: len(kept)] = bias[list(kept)]
    model.resize_token_embeddings(len(kept), mean_resizing=False)


def _tokenizer(names: Sequence[str], items: Sequence[str], old: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """Words by whitespace, item tokens also where they touch."""
    words = {name: place for place, name in enumerate(names)}
    roles = {role: token for role, token in old.special_tokens_map.items() if isinstance(token, str) and token in words}
    model = models.WordLevel(words, unk_token=roles["unk_token"]) if "unk_token" in roles else models.WordLevel(words)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)
    made.add_tokens(list(items))  # they have their ids already
    return made


def _renumber(probe: Probe, renumbered: Renumbered) -> Probe:
    """What the smaller model must give: the same for the tokens that it has."""
    kept = list(renumbered)
    places = torch.zeros(max(kept) + 1, dtype=torch.int64)
    places[kept] = torch.arange(len(kept))
    inputs = {
        name: torch.where(ids < 0, ids, places[ids.clamp(min=0)]) if name in ("input_ids", "labels") else ids
        for name, ids in probe.inputs.items()
    }
    return Probe(inputs, probe.logits[:, kept])


def _ids(tokens: ItemTokens) -> list[int]:
    return [token for level in tokens.token_ids for token in level]


def _all(value: int | Iterable[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _new(value: int | Sequence[int], renumbered: Renumbered) -> int | list[int] | None:
    """The new id of a role, or None where nothing has it."""
    found = [renumbered[one] for one in _all(value) if one in renumbered]
    if isinstance(value, int):
        return found[0] if found else None
    return found or None
