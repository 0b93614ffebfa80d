"""The model card, README.md of a bundle: what it is, how good, and what it is not. Knows facts and Markdown."""

from collections.abc import Mapping
from typing import Any

from genrec.bundle import Manifest
from training.rank_table import MODEL
from training.report.notes import honest_notes, protocol_notes
from training.report.tables import model_name
from training.results import headline_columns, main_results, method_name


def model_card(manifest: Manifest, metrics: Mapping[str, Any], prepared: Mapping[str, Any]) -> str:
    """README.md of a bundle.

    Args:
        manifest: Its facts.
        metrics: ``metrics.json``.
        prepared: ``report.json`` of the stage `prepare`.
    """
    made_of = {key: value for key, value in manifest.provenance.items() if not isinstance(value, dict)}
    main = main_results(metrics)[0]
    split = ", ".join(f"{count:,} {name}" for name, count in prepared.get("split", {}).items())
    note = metrics.get("refit", {}).get("note")
    return "\n".join(
        [
            f"# {manifest.name}",
            "",
            "A bundle of genrec: a merged model, its tokenizer, the catalog and the trie of its items.",
            f"Serve it with `genrec serve --bundle {manifest.name}`.",
            *(["", f"**{_plain(note)}**"] if note else []),
            "",
            "## What it is",
            "",
            f"- architecture: {manifest.architecture}, weights in {manifest.dtype}",
            f"- semantic IDs: {manifest.num_levels} levels of {', '.join(map(str, manifest.codebook_sizes))} codes",
            f"- history: the newest {manifest.prompt.max_history_items} items, oldest first",
            *(f"- {key.replace('_', ' ')}: {_plain(value)}" for key, value in made_of.items()),
            *([f"- split: {split}"] if split else []),
            "",
            f"## How good it is: {main}, {metrics['users'][main]:,} users",
            "",
            *_results(metrics),
            "",
            *_leads(metrics),
            *(f"- {note}" for note in protocol_notes(metrics)),
            "",
            "`training/report.html` has every cut-off, pictures, and examples.",
            "",
            "## What it is not",
            "",
            *(f"- {note}" for note in honest_notes(metrics, prepared)),
            "",
        ]
    )


def _results(metrics: Mapping[str, Any]) -> list[str]:
    main, baselines, _ = main_results(metrics)
    names = headline_columns(metrics[main])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method, table in {MODEL: metrics[main], **baselines}.items():
        cells = " | ".join(_interval(table[name], ".4f") for name in names)
        lines.append(f"| {_plain(method_name(method) if method != MODEL else model_name(metrics))} | {cells} |")
    return lines


def _leads(metrics: Mapping[str, Any]) -> list[str]:
    """The model less each other method, paired; nothing where there is no other."""
    leads = main_results(metrics)[2]
    if not leads:
        return []
    names = list(next(iter(leads.values())))
    lines = [f"| {model_name(metrics)} less | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for other, lead in leads.items():
        cells = " | ".join(_interval(lead[name], "+.4f") for name in names)
        lines.append(f"| {_plain(method_name(other))} | {cells} |")
    return [*lines, ""]


def _interval(interval: Mapping[str, float], shape: str) -> str:
    return f"{interval['value']:{shape}} [{interval['low']:{shape}}, {interval['high']:{shape}}]"


def _plain(value: object) -> str:
    """Text of data that can end neither its line nor its cell, nor begin a tag."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
