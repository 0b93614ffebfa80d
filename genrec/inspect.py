"""`genrec inspect`: what a bundle is, how healthy its semantic IDs are, and whether it would be served."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from genrec.bundle import layout
from genrec.bundle.catalog import read_catalog
from genrec.bundle.manifest import Manifest, check_version, read_manifest
from genrec.errors import BundleError
from genrec.semantic_id import Catalog


def inspect(
    bundle: Annotated[Path, typer.Argument(help="directory of a bundle", show_default=False)],
    verify: Annotated[
        bool, typer.Option("--verify", help="run every check that a server runs before it serves")
    ] = False,
    expect_version: Annotated[
        str | None, typer.Option(help="refuse a bundle of any other version", show_default=False)
    ] = None,
) -> None:
    """Show a bundle's manifest, catalog, semantic-ID health and sizes."""
    if not (bundle / layout.MANIFEST).is_file():
        raise BundleError(f"{bundle} has no {layout.MANIFEST}, so it is not a bundle.")
    if verify:
        from genrec.recommender import Recommender  # PyTorch comes with it

        recommender = Recommender.load(bundle, device="cpu", dtype="float32", expect_version=expect_version)
        typer.echo(
            f"verified: hashes, weights, tokens, catalog, trie, golden answers ({recommender.engine_name} engine)"
        )
        manifest, catalog = recommender.bundle.manifest, recommender.bundle.catalog
    else:
        manifest = read_manifest(bundle / layout.MANIFEST)
        check_version(manifest, expect_version)
        with layout.open_plain(bundle, layout.ITEMS) as file:
            catalog = read_catalog(file.readall(), manifest.item_tokens)
    for line in (*_describe_manifest(manifest), *_describe_catalog(catalog), *_describe_levels(catalog, manifest)):
        typer.echo(line)


def _describe_manifest(manifest: Manifest) -> list[str]:
    size = sum(facts.bytes for facts in manifest.files.values())
    weights = sum(facts.bytes for name, facts in manifest.files.items() if name.endswith(".safetensors"))
    generation = manifest.generation
    return [
        f"{manifest.name} {manifest.version}, format {manifest.format_version}, sealed {manifest.created_at}",
        f"model       {manifest.architecture}, {manifest.dtype}, {weights / 1e6:.1f} MB of {size / 1e6:.1f} MB in all",
        f"generation  {generation.num_beams} beams, k up to {generation.max_k}, length penalty "
        f"{generation.length_penalty:g}, history {'excluded' if generation.exclude_history else 'not excluded'}",
        f"prompt      newest {manifest.prompt.max_history_items} items, {manifest.prompt.order.replace('_', ' ')}",
        *(f"{key:<11} {value}" for key, value in sorted(manifest.provenance.items()) if not isinstance(value, dict)),
    ]


def _describe_catalog(catalog: Catalog) -> list[str]:
    columns = ", ".join(f"{name} ({kind})" for name, kind in catalog.columns.items()) or "none"
    return [f"catalog     {len(catalog):,} items, metadata: {columns}"]


def _describe_levels(catalog: Catalog, manifest: Manifest) -> list[str]:
    """Per level: codes used, and the entropy as a share of what an even use of all codes would have."""
    lines = []
    for level, size in enumerate(manifest.codebook_sizes):
        counts = np.bincount(catalog.codes[:, level], minlength=size)
        share = counts[counts > 0] / len(catalog)
        entropy = float((share * np.log(1 / share)).sum() / np.log(size)) if size > 1 else 1.0
        prefixes = len(np.unique(catalog.codes[:, : level + 1], axis=0))
        lines.append(
            f"level {level}     {np.count_nonzero(counts)} of {size} codes used, entropy {entropy:.2f}, "
            f"{prefixes:,} distinct prefixes"
        )
    return lines
