"""Stage `finetune`: LoRA, or all parameters, from the base model to one that recommends.

Only global rank 0 writes. The stage leaves a probe, logits of the model as it was trained, that the merged model must
reproduce.
"""

import shutil
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, set_seed

from genrec.models import load_tokenizer
from training.alignment import check_tasks
from training.arguments import check_arguments
from training.checkpoints import SEAL
from training.corpus import Corpus
from training.fit_report import write_fit
from training.fitting import fit
from training.lora import adapted_modules, add_lora, summarise
from training.processes import is_main
from training.proof import Probe, prove_gradients
from training.recipe import Recipe
from training.stage import Stage, StageContext
from training.vocabulary import load_trainable, save_checkpoint

PROBE = "probe.safetensors"
# What the Trainer keeps for resuming; some of it is pickled, none of it belongs in a result.
_RESUME_FILES = ("*.pt", "*.pth", "*.bin", "trainer_state.json", SEAL)


def run(context: StageContext) -> None:
    """`pretrain` -> ``adapter/`` (or ``model/``), ``checkpoints/``, ``probe.safetensors`` and ``fit.json``."""
    settings, progress = context.recipe.finetune, context.progress
    corpus = Corpus.load(context.inputs, context.recipe)
    source = context.inputs["pretrain"] / "model"
    model: PreTrainedModel = load_trainable(source, corpus.architecture)
    set_seed(context.recipe.seed)  # LoRA is drawn; not from wherever the stages before have left the generator
    if settings.method == "lora":
        used = np.unique(corpus.encoder.paths).tolist()
        model = add_lora(model, settings.lora, corpus.architecture, used)
        names = adapted_modules(model)
        progress.say(f"finetune: LoRA in {len(names)} modules: {summarise(names)}")
    progress.say(f"finetune: {_trainable_share(model)}")
    proof = prove_gradients(model, corpus.encoder, corpus.architecture, corpus.model_inputs)
    progress.say(f"finetune: {proof} of item tokens got a gradient")
    proof.require()
    result = fit(
        model,
        corpus.architecture,
        corpus.training_examples(settings),
        corpus.validation_examples(settings.validation_users) if settings.stop_at_epoch is None else None,
        settings=settings,
        seed=context.recipe.seed,
        output=context.output / "checkpoints",
        recall=corpus.recall(settings.recall_users),
        progress=progress,
        label="finetune",
        model_inputs=corpus.model_inputs,
        event_files=context.output.parent / "tensorboard" / "finetune" if settings.tensorboard else None,
    )
    if is_main():
        recall, told = corpus.validation_recall(model, settings.validation_users)
        progress.say(f"finetune: {told}")
        _save(model, source, context.output, lora=settings.method == "lora")
        # on the CPU, where `merge` will ask again: another device rounds otherwise
        probe = Probe.of(model.cpu(), corpus.encoder, corpus.architecture, corpus.model_inputs)
        probe.save(context.output / PROBE)
        write_fit(context.output, result, recall)
        _tidy(context.output / "checkpoints", lora=settings.method == "lora")


def _trainable_share(model: PreTrainedModel) -> str:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    return f"{trained:,} of {total:,} parameters are trained ({trained / total:.1%})"


def _save(model: PreTrainedModel, source: Path, output: Path, *, lora: bool) -> None:
    if lora:
        # The base has its full vocabulary on disk already; without this PEFT would store both matrices again.
        model.save_pretrained(output / "adapter", save_embedding_layers=False)
    else:
        save_checkpoint(model, load_tokenizer(source), output / "model")


def _tidy(checkpoints: Path, *, lora: bool) -> None:
    """Keep of each checkpoint what `merge` can use. Last of all: before it, a run that was killed could go on."""
    if not lora:
        shutil.rmtree(checkpoints, ignore_errors=True)
    for pattern in _RESUME_FILES:
        for file in checkpoints.glob(f"checkpoint-*/{pattern}"):
            file.unlink()


def _check(recipe: Recipe) -> None:
    check_arguments(recipe.model.architecture, recipe.finetune, "finetune")
    check_tasks(recipe, recipe.finetune, "finetune")


def _section(recipe: Recipe) -> object:
    return {"finetune": recipe.finetune.decisive(), "architecture": recipe.model.architecture, "prompt": recipe.prompt}


STAGE = Stage(
    name="finetune",
    needs=("prepare", "quantize", "vocabulary", "pretrain"),
    section=_section,
    run=run,
    check=_check,
    version=2,
    resumable=True,
    every_rank=True,
)
