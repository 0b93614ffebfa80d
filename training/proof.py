"""Two proofs that every training run owes: new tokens learn, and the merged model is the model that was trained.

Both failures are silent otherwise: training goes on, loss falls, and the bundle serves rows that were never touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from genrec.errors import TrainingError
from genrec.history import IGNORE, HistoryEncoder
from genrec.model_inputs import NO_INPUTS, ModelInputs
from genrec.model_plugin import check_inputs, plugin_in_use
from genrec.models import Architecture
from training.examples import Collator, LastItemExamples

MERGE_TOLERANCE = 1e-4
"""Largest difference of a logit between the live and the merged, saved and reloaded model, in float32."""

PROVING_ITEMS = 20
_BATCH = 8


@dataclass(frozen=True, slots=True)
class GradientProof:
    """How many rows of item tokens got a gradient on either side of the model, and what else got none.

    Attributes:
        rows: item tokens that some item uses.
        input_rows: of them, rows of the input embedding with a gradient.
        output_rows: of them, rows of the output head with a gradient.
        silent_modules: modules that the model's plug-in adds and that got none.
    """

    rows: int
    input_rows: int
    output_rows: int
    silent_modules: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"gradient proof: {self.input_rows}/{self.rows} input and {self.output_rows}/{self.rows} output rows"

    def require(self) -> None:
        """Fail unless every row learns, and every module of a plug-in.

        Raises:
            TrainingError: a row or such a module got no gradient.
        """
        if self.silent_modules:
            raise TrainingError(
                f"module {self.silent_modules[0]!r} of the plug-in got no gradient and would stay as it began; hand "
                "every input of the model's forward on to its encoder."
            )
        if min(self.input_rows, self.output_rows) < self.rows:
            raise TrainingError(
                f"{self} of item tokens got a gradient; the others would stay as they were drawn. "
                "Train the item tokens: finetune.lora.train_item_tokens = true."
            )


def covering_rows(paths: npt.NDArray[np.int32]) -> list[int]:
    """Few items that together use every token that any item uses: the first item of each token."""
    firsts = [np.unique(paths[:, level], return_index=True)[1] for level in range(paths.shape[1])]
    return sorted({int(row) for first in firsts for row in first})


def proving_examples(encoder: HistoryEncoder, architecture: Architecture) -> LastItemExamples:
    """Histories that together use every item token; each, of up to 20 items, is followed by its own first item."""
    rows = covering_rows(encoder.paths)
    size = min(encoder.prompt.max_history_items, PROVING_ITEMS)
    sequences = [np.array([*rows[at : at + size], rows[at]], dtype=np.int32) for at in range(0, len(rows), size)]
    return LastItemExamples(encoder, architecture, sequences, [len(sequence) - 1 for sequence in sequences])


def prove_gradients(
    model: PreTrainedModel, encoder: HistoryEncoder, architecture: Architecture, inputs: ModelInputs = NO_INPUTS
) -> GradientProof:
    """Backpropagate through histories and targets that use every item token; count the rows that receive something.

    Gradients are cleared again. `model` is what will be trained, adapters and all; `inputs` is what it takes beside ids
    and mask.
    """
    check_inputs(model, inputs)
    collator = Collator(inputs)
    examples = proving_examples(encoder, architecture)
    was_training = model.training
    model.eval()  # dropout could hide a row
    model.zero_grad()
    device = next(model.parameters()).device
    for index in range(len(examples)):
        batch = {name: tensor.to(device) for name, tensor in collator([examples[index]]).items()}
        model(**batch).loss.backward()
    used = np.unique(encoder.paths)
    counts = [_rows_with_gradient(side(), used) for side in (model.get_input_embeddings, model.get_output_embeddings)]
    silent = _silent_modules(model)
    model.zero_grad()
    model.train(was_training)
    return GradientProof(len(used), counts[0], counts[1], silent)


def _silent_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Of what the model's plug-in adds, what got no gradient."""
    plugin = plugin_in_use(model)
    learning = [
        name.split(".")
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    ]
    added = () if plugin is None else plugin.trained_modules
    return tuple(module for module in added if not any(module in path for path in learning))


def _rows_with_gradient(module: Any, token_ids: npt.NDArray[np.int32]) -> int:  # noqa: ANN401  (a PEFT wrapper)
    """How many of the rows have a gradient in whichever parameter PEFT trains in place of the weight."""
    adapter = getattr(module, "token_adapter", None)
    if adapter is not None:  # trainable token rows: a small matrix of their own
        name = adapter.active_adapters[0]
        place = {token: row for row, token in enumerate(adapter.token_indices[name])}
        gradient = adapter.trainable_tokens_delta[name].grad
        index = [place[int(token)] for token in token_ids if int(token) in place]
    else:
        saved = getattr(module, "modules_to_save", None)
        weight = module.weight if saved is None else saved[module.active_adapters[0]].weight
        gradient, index = weight.grad, [int(token) for token in token_ids]
    if gradient is None:
        return 0
    return int((gradient[index].abs().amax(dim=1) > 0).sum())


@dataclass(frozen=True, eq=False)
class Probe:
    """Prompts that use every item token, and what the live model gave: what a merged model must reproduce.

    Attributes:
        inputs: A batch of examples.
        logits: ``(n, V)`` float32, of the n tokens that answer them.
    """

    inputs: dict[str, torch.Tensor]
    logits: torch.Tensor

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        encoder: HistoryEncoder,
        architecture: Architecture,
        extra: ModelInputs = NO_INPUTS,
    ) -> "Probe":
        """Ask `model`, plain or PEFT's; `extra` is what it takes beside ids and mask."""
        check_inputs(model, extra)
        examples = proving_examples(encoder, architecture)
        inputs = Collator(extra)([examples[index] for index in range(len(examples))])
        return cls(inputs, _logits(model, inputs))

    def save(self, file: Path) -> None:
        """Write it as safetensors."""
        save_file({**self.inputs, "logits": self.logits}, file)

    @classmethod
    def load(cls, file: Path) -> "Probe":
        """Read what `save` wrote."""
        tensors = load_file(file)
        logits = tensors.pop("logits")
        return cls(tensors, logits)

    def difference(self, model: PreTrainedModel) -> float:
        """Largest difference of a logit."""
        logits = _logits(model, self.inputs)
        if logits.shape != self.logits.shape:
            raise TrainingError(
                f"the merged model gives logits {tuple(logits.shape)}, the live one {tuple(self.logits.shape)}."
            )
        return float((logits - self.logits).abs().max())

    def require(self, model: PreTrainedModel) -> float:
        """The difference, if it is small enough.

        Raises:
            TrainingError: the model is another than the one that was trained.
        """
        difference = self.difference(model)
        if not difference <= MERGE_TOLERANCE:
            raise TrainingError(
                f"the merged model, saved and reloaded, differs from the live one by {difference:.2e} in a logit "
                f"(allowed {MERGE_TOLERANCE:.0e}); nothing is written. An untied head or a lost row does this."
            )
        return difference


@torch.no_grad()
def _logits(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ANN401  (plain or PEFT's)
    """Logits ``(n, V)`` of the labelled tokens, in the order of the batch, float32 on the CPU."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found = []
    for at in range(0, len(inputs["labels"]), _BATCH):  # a large vocabulary makes large logits
        batch = {name: tensor[at : at + _BATCH].to(device) for name, tensor in inputs.items()}
        logits, labelled = model(**batch).logits, batch["labels"] != IGNORE
        if not model.config.is_encoder_decoder:  # the token before a label predicts it
            logits, labelled = logits[:, :-1], labelled[:, 1:]
        found.append(logits[labelled].float().cpu())
    model.train(was_training)
    return torch.cat(found)
