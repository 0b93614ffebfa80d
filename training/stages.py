"""The stages of training in their order. The pipeline and the commands read this list and nothing else."""

from typing import Final

from training import (
    assemble,
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
    evaluate.STAGE,
    seal.STAGE,
)
