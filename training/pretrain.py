"""Stage `pretrain`: all parameters of a model from scratch, to give LoRA a good place to start from.

Without a `[pretrain]` section the base model passes through unchanged.
"""

import shutil

from transformers import PreTrainedModel

from genrec.models import load_tokenizer
from training.corpus import Corpus
from training.fit_report import write_fit
from training.fitting import fit
from training.processes import is_main
from training.recipe import Recipe
from training.stage import Stage, StageContext
from training.vocabulary import load_trainable, save_checkpoint


def run(context: StageContext) -> None:
    """`vocabulary` -> ``model/`` and ``fit.json``."""
    settings = context.recipe.pretrain
    source = context.inputs["vocabulary"] / "model"
    if settings is None:
        shutil.copytree(source, context.output / "model", dirs_exist_ok=True)
        context.progress.say("pretrain: none in the recipe, the base model passes unchanged")
        return
    corpus = Corpus.load(context.inputs, context.recipe)
    model: PreTrainedModel = load_trainable(source, corpus.architecture)
    checkpoints = context.output / "checkpoints"
    result = fit(
        model,
        corpus.architecture,
        corpus.training_examples(settings),
        corpus.validation_examples(settings.validation_users),
        settings=settings,
        seed=context.recipe.seed,
        output=checkpoints,
        recall=corpus.recall(settings.recall_users),
        progress=context.progress,
        label="pretrain",
    )
    if is_main():
        recall = corpus.recall()(model)
        context.progress.say(f"pretrain: validation recall@10 {recall:.4f} on all users")
        save_checkpoint(model, load_tokenizer(source), context.output / "model")
        write_fit(context.output, result, recall)
        shutil.rmtree(checkpoints, ignore_errors=True)


def _section(recipe: Recipe) -> object:
    return {"pretrain": recipe.pretrain, "architecture": recipe.model.architecture, "prompt": recipe.prompt}


STAGE = Stage(
    name="pretrain",
    needs=("prepare", "quantize", "vocabulary"),
    section=_section,
    run=run,
    resumable=True,
    every_rank=True,
)
