"""A bundle to look at: random weights, titles and genres, and among the titles some that are markup."""

from pathlib import Path

import pyarrow as pa

from benchmarks.synthetic import Shape, catalog, item_tokens, random_model, seal_synthetic, tokenizer
from genrec.bundle import Generation, Manifest, PromptPieces, write_draft
from genrec.semantic_id import Catalog

SHAPE = Shape(num_items=400, codebook_sizes=(8, 12, 16), model="tiny-llama", num_beams=12, max_k=50)
HOSTILE = [
    '<img src=x onerror="window.pwned=1">',
    "<script>window.pwned=2</script>",
    "\"><svg/onload=window.pwned=3>'",
    "{{7*7}}${7*7}<b>bold</b>\u202e\u0000"[:-1],
]
"""Titles of the most popular items, so that they are in every list."""


def showcase_bundle(root: Path) -> Path:
    """A sealed bundle of 400 items, without measurements, as an imported one."""
    model_path, draft = root / "model", root / "draft"
    vocabulary = tokenizer(SHAPE.codebook_sizes)
    vocabulary.save_pretrained(model_path)
    random_model(SHAPE.model, len(vocabulary)).save_pretrained(model_path)
    manifest = Manifest(
        name="showcase",
        architecture="causal",
        num_levels=len(SHAPE.codebook_sizes),
        codebook_sizes=SHAPE.codebook_sizes,
        item_token_ids=item_tokens(SHAPE.codebook_sizes).token_ids,
        prompt=PromptPieces(prefix_ids=(3,), max_history_items=20),
        decoder_prefix_ids=(),
        generation=Generation(num_beams=SHAPE.num_beams, max_k=SHAPE.max_k),
        dtype="float32",
    )
    write_draft(draft, manifest, _with_hostile_titles(catalog(SHAPE)), model_path)
    return seal_synthetic(draft, root / "showcase")


def _with_hostile_titles(plain: Catalog) -> Catalog:
    titles = plain.metadata.column("title").to_pylist()
    for row, title in zip(plain.most_popular(), HOSTILE, strict=False):
        titles[int(row)] = title
    place = plain.metadata.column_names.index("title")
    metadata = plain.metadata.set_column(place, "title", pa.array(titles))
    return Catalog(plain.item_ids, plain.codes, plain.popularity, metadata)
