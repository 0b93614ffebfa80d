"""The model card and the report: what a bundle is and how good, for people. Knows facts and how they are laid out."""

import html
from collections.abc import Mapping
from typing import Any

from genrec.bundle import Manifest

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}code{background:#f3f3f3;padding:0 .2rem}"
)


def model_card(manifest: Manifest, metrics: Mapping[str, Any]) -> str:
    """README.md of a bundle."""
    made_of = {key: value for key, value in manifest.provenance.items() if not isinstance(value, dict)}
    return "\n".join(
        [
            f"# {manifest.name}",
            "",
            "A bundle of genrec: a merged model, its tokenizer, the catalog and the trie of its items.",
            f"Serve it with `genrec serve --bundle {manifest.name}`.",
            "",
            "## What it is",
            "",
            f"- architecture: {manifest.architecture}, weights in {manifest.dtype}",
            f"- semantic IDs: {manifest.num_levels} levels of {', '.join(map(str, manifest.codebook_sizes))} codes",
            f"- history: the newest {manifest.prompt.max_history_items} items, oldest first",
            *(f"- {key.replace('_', ' ')}: {value}" for key, value in made_of.items()),
            "",
            f"## How good it is: test, {metrics['users']['test']:,} users",
            "",
            *_markdown_table(metrics),
            "",
            f"Mean over users with a 95 % bootstrap interval; {metrics['protocol']['ranking']}; "
            f"{metrics['protocol']['num_beams']} beams.",
            "",
            "## What it is not",
            "",
            "It knows only the items and habits of its training data, recommends popular items more than rare ones, "
            "and has not been tested for fairness between groups of users.",
            "",
        ]
    )


def report_page(manifest: Manifest, metrics: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """report.html: the numbers, the pictures beside it, and what the stages noted."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{_cell(cell)}</td>" for cell in table.values()) + "</tr>"
        for name, table in _methods(metrics).items()
    )
    heads = "".join(f"<th>{name}</th>" for name in metrics["test"])
    sections = "".join(f"<h2>{html.escape(title)}</h2><pre>{html.escape(text)}</pre>" for title, text in notes.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(manifest.name)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(manifest.name)}</h1>"
        f"<table><tr><th>test, {metrics['users']['test']:,} users</th>{heads}</tr>{rows}</table>"
        "<p><img src=comparison.png alt='model and baselines'></p>"
        "<p><img src=curves.png alt='loss and validation recall over steps'></p>"
        f"{sections}</html>\n"
    )


def _methods(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Mapping[str, float]]]:
    baselines = {name.replace("_", " "): table for name, table in metrics["baselines"].items()}
    return {"this bundle": metrics["test"], **baselines}


def _markdown_table(metrics: Mapping[str, Any]) -> list[str]:
    names = list(metrics["test"])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method, table in _methods(metrics).items():
        lines.append(f"| {method} | " + " | ".join(_cell(table[name]) for name in names) + " |")
    return lines


def _cell(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"
