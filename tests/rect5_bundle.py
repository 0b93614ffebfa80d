"""A tiny bundle whose model is a RecT5 with embeddings far from zero."""

import json
from pathlib import Path

import torch

from genrec.bundle import layout
from genrec.model_plugin import installed_plugin
from genrec.rect5 import PLUGIN, RecT5ForConditionalGeneration
from tests.fakes import TinyShape, seal_tiny, write_tiny_draft


def perturb(model: RecT5ForConditionalGeneration, std: float = 1.0) -> RecT5ForConditionalGeneration:
    """Give the two embeddings random rows, all but those of nothing."""
    with torch.no_grad():
        for embedding in (model.encoder.item_positions, model.encoder.meta_types):
            embedding.weight[1:].normal_(0.0, std)
    return model


def write_rect5_draft(root: Path) -> Path:
    installed_plugin("rect5")
    draft = write_tiny_draft(root, TinyShape("seq2seq", separator=True, suffix=True))
    torch.manual_seed(7)
    perturb(RecT5ForConditionalGeneration.from_pretrained(draft / layout.MODEL)).save_pretrained(draft / layout.MODEL)
    manifest = draft / layout.DRAFT_MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"model_inputs": list(PLUGIN.inputs)}))
    return draft


def rect5_bundle(root: Path) -> Path:
    return seal_tiny(write_rect5_draft(root), root / "tiny")
