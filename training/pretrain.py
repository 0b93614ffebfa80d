"""Stage `pretrain`: all parameters of a model from scratch, to give LoRA a good place to start from.

Without a `[pretrain]` section the base model passes through unchanged, and so do the weights of a base bundle: they are
a good place already.
"""

import shutil

from transformers import PreTrainedModel

from genrec.models import load_tokenizer
from training.alignment import check_tasks
from training.arguments import check_arguments
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
    if settings is None or context.recipe.base is not None:
        shutil.copytree(source, context.output / "model", dirs_exist_ok=True)
        why = "none in the recipe, the base model passes" if settings is None else "the base bundle's weights pass"
        context.progress.say(f"pretrain: {why} unchanged")
        return
    corpus = Corpus.load(context.inputs, context.recipe)
    model: PreTrainedModel = load_trainable(source, corpus.architecture)
    checkpoints = context.output / "checkpoints"
    result = fit(
        model,
        corpus.architecture,
        corpus.training_examples(settings),
        corpus.validation_examples(settings.validation_users) if settings.stop_at_epoch is None else None,
        settings=settings,
        seed=context.recipe.seed,
        output=checkpoints,
        recall=corpus.recall(settings.recall_users),
        progress=context.progress,
        label="pretrain",
        model_inputs=corpus.model_inputs,
        event_files=context.output.parent / "tensorboard" / "pretrain" if settings.tensorboard else None,
    )
    if is_main():
        recall, told = corpus.validation_recall(model, settings.validation_users)
        context.progress.say(f"pretrain: {told}")
        save_checkpoint(model, load_tokenizer(source), context.output / "model")
        write_fit(context.output, result, recall)
        shutil.rmtree(checkpoints, ignore_errors=True)


def _check(recipe: Recipe) -> None:
    if recipe.pretrain is not None:
        check_arguments(recipe.model.architecture, recipe.pretrain, "pretrain")
        check_tasks(recipe, recipe.pretrain, "pretrain")


def _section(recipe: Recipe) -> object:
    return {
        "pretrain": recipe.pretrain and recipe.pretrain.decisive(),
        "architecture": recipe.model.architecture,
        "prompt": recipe.prompt,
    }


STAGE = Stage(
    name="pretrain",
    needs=("prepare", "quantize", "vocabulary"),
    section=_section,
    run=run,
    check=_check,
    version=2,
    resumable=True,
    every_rank=True,
    reads_base=True,
)
