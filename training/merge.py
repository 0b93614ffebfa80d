"""Stage `merge`: the adapter becomes part of the weights, and the result proves that it is the model that was trained.

Serving an adapter would cost a product and a sum in every layer, and need PEFT; a merged checkpoint is plain.
"""

from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from genrec.errors import InputError, RecipeError
from genrec.models import Architecture, load_model, load_tokenizer
from training.corpus import Corpus
from training.finetune import PROBE
from training.lora import load_adapter
from training.proof import Probe
from training.recipe import Recipe
from training.stage import Stage, StageContext
from training.vocabulary import generation_ids, load_trainable, save_checkpoint


def run(context: StageContext) -> None:
    """`finetune` -> ``model/``: merged, saved, reloaded as the service would, and held against the live model."""
    recipe, finetuned = context.recipe, context.inputs["finetune"]
    architecture = recipe.model.architecture
    if recipe.finetune.method == "full":
        if recipe.merge.checkpoint != "best":
            raise RecipeError(
                'merge.checkpoint chooses an adapter; finetune.method = "full" keeps only the best model.'
            )
        source, probe = finetuned / "model", Probe.load(finetuned / PROBE)
        merged = load_trainable(source, architecture)
    else:
        source = context.inputs["pretrain"] / "model"
        live = load_adapter(load_trainable(source, architecture), adapter_directory(finetuned, recipe.merge.checkpoint))
        probe = _probe(context, live)
        merged = live.merge_and_unload()
    difference = save_merged(merged, source, context.output / "model", architecture, probe)
    context.progress.say(f"merge proof: merged, saved and reloaded, a logit differs by {difference:.1e} at most")


def adapter_directory(finetuned: Path, checkpoint: str) -> Path:
    """Where the chosen adapter is.

    Raises:
        InputError: there is no such checkpoint; the message lists those there are.
    """
    adapter = finetuned / "adapter" if checkpoint == "best" else finetuned / "checkpoints" / checkpoint
    if not (adapter / "adapter_config.json").is_file():
        kept = sorted(path.name for path in (finetuned / "checkpoints").glob("checkpoint-*"))
        raise InputError(f"merge.checkpoint = {checkpoint!r} was not kept; there are best, {', '.join(kept)}.")
    return adapter


def save_merged(merged: PreTrainedModel, source: Path, target: Path, architecture: Architecture, probe: Probe) -> float:
    """Save a merged model, load it as the service does, and compare it with the live one.

    Returns:
        The largest difference of a logit.

    Raises:
        TrainingError: it differs by more than `proof.MERGE_TOLERANCE`.
        BundleError: the saved checkpoint lacks a weight or has one too many.
    """
    merged.config.use_cache = True
    merged.generation_config = generation_ids(merged.config)
    save_checkpoint(merged, load_tokenizer(source), target)
    return probe.require(load_model(target, architecture))


def _probe(context: StageContext, live: PeftModel) -> Probe:
    """What the model gave at the end of its training; of an earlier checkpoint, what its adapter gives unmerged."""
    if context.recipe.merge.checkpoint == "best":
        return Probe.load(context.inputs["finetune"] / PROBE)
    corpus = Corpus.load(context.inputs, context.recipe)
    return Probe.of(live, corpus.encoder, corpus.architecture, corpus.model_inputs)


def _section(recipe: Recipe) -> object:
    return {
        "merge": recipe.merge,
        "method": recipe.finetune.method,
        "architecture": recipe.model.architecture,
        "prompt": recipe.prompt,
    }


STAGE = Stage(
    name="merge", needs=("prepare", "quantize", "vocabulary", "pretrain", "finetune"), section=_section, run=run
)
