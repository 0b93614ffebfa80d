"""The stages of training in their order. The pipeline and the commands read this list and nothing else."""

import dataclasses
from typing import Final

from training import (
    assemble,
    baseline_ranks,
    churn,
    embed,
    evaluate,
    finetune,
    merge,
    prepare,
    pretrain,
    quantize,
    seal,
    vocabulary,
)
from training.recipe import Recipe
from training.stage import Stage

STAGES: Final[tuple[Stage, ...]] = (
    prepare.STAGE,
    embed.STAGE,
    quantize.STAGE,
    vocabulary.STAGE,
    pretrain.STAGE,
    finetune.STAGE,
    merge.STAGE,
    assemble.STAGE,
    baseline_ranks.STAGE,
    evaluate.STAGE,
    seal.STAGE,
)


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a recipe. One that goes on from a bundle also says what changes for users."""
    if recipe.base is None:
        return STAGES
    *before, last = STAGES
    return (*before, churn.STAGE, dataclasses.replace(last, needs=(*last.needs, churn.STAGE.name)))
