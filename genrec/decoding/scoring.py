"""Exact scores of given items: the whole path is fed at once and read back, no search.

Shapes: R prompts, T prompt tokens, L levels, V vocabulary.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from genrec.decoding.padding import pad_prompts
from genrec.model_inputs import NO_INPUTS, ModelInputs
from genrec.model_plugin import check_inputs


@torch.inference_mode()
def path_log_probs(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    paths: Sequence[Sequence[int]],
    decoder_prefix_ids: Sequence[int],
    inputs: ModelInputs = NO_INPUTS,
) -> torch.Tensor:
    """Log-probability of each token of `paths[i]` after `prompts[i]`, over the full vocabulary.

    Args:
        model, prompts, paths, decoder_prefix_ids, inputs: as `path_distributions`.

    Returns:
        ``(R, L)`` float32, nats. ``.sum(1) / L ** length_penalty`` is the score.
    """
    targets = torch.tensor(paths, dtype=torch.int64, device=model.device)
    log_probs = path_distributions(model, prompts, paths, decoder_prefix_ids, inputs)
    found: torch.Tensor = log_probs.gather(2, targets[:, :, None]).squeeze(2)
    return found


@torch.inference_mode()
def path_distributions(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    paths: Sequence[Sequence[int]],
    decoder_prefix_ids: Sequence[int],
    inputs: ModelInputs = NO_INPUTS,
) -> torch.Tensor:
    """The model's distribution before each token of `paths[i]` after `prompts[i]`.

    Args:
        model: in eval mode.
        prompts: R prompts.
        paths: R token paths of L tokens each.
        decoder_prefix_ids: what the decoder starts with; unused by a decoder-only model.
        inputs: what the model takes beside ids and mask.

    Returns:
        ``(R, L, V)`` float32 log-probabilities, nats.

    Raises:
        EngineError: the model takes other inputs than these.
    """
    check_inputs(model, inputs)
    targets = torch.tensor(paths, dtype=torch.int64, device=model.device)  # (R, L)
    num_levels = targets.shape[1]
    if model.config.is_encoder_decoder:
        padded = pad_prompts(prompts, left=False, device=model.device)
        prefix = torch.tensor([list(decoder_prefix_ids)], device=model.device).expand(len(paths), -1)
        decoder_ids = torch.cat([prefix, targets[:, :-1]], dim=1)
        extra = inputs(padded.ids, padded.mask)
        logits = model(input_ids=padded.ids, attention_mask=padded.mask, decoder_input_ids=decoder_ids, **extra).logits
        logits = logits[:, -num_levels:]
    else:
        # Padded on the right: causal attention never sees the padding, and positions count from the first token.
        fed = [list(prompt) + list(path[:-1]) for prompt, path in zip(prompts, paths, strict=True)]
        padded = pad_prompts(fed, left=False, device=model.device)
        logits = model(input_ids=padded.ids, attention_mask=padded.mask).logits  # (R, T + L - 1, V)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=model.device)
        places = last[:, None] + torch.arange(num_levels, device=model.device)  # (R, L)
        logits = logits[torch.arange(len(paths), device=model.device)[:, None], places]
    log_probs: torch.Tensor = logits.float().log_softmax(dim=-1)
    return log_probs
