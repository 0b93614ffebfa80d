"""The page: its sections in the order in which a reader asks.

Knows what was measured and how it is told; measures nothing. Everything from data is escaped by `training.report.html`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from genrec.bundle import Manifest
from training.report.html import Markup, join, picture, table, tag
from training.report.notes import honest_notes, protocol_notes
from training.report.tables import (
    facts_table,
    leads_table,
    levels_table,
    methods_table,
    plain_table,
    span,
    verdict,
)
from training.results import headline_columns, main_results, method_name

FILE = "report.html"
_PLACES = ("dataset", "base_model", "method", "seed", "git_commit")


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """What the page tells of.

    Attributes:
        manifest: Of the bundle.
        metrics: ``metrics.json``.
        examples: ``examples.json``: answers with titles.
        pictures: A directory with the PNGs of an evaluation; those that are absent are left out.
        prepared: ``report.json`` of the stage `prepare`; empty where it is not known.
        quantized: ``report.json`` of the stage `quantize`, likewise.
        health: PNGs of semantic-ID health with their captions.
        changes: What users notice against the bundle that this one went on from, as sentences; empty for most.
    """

    manifest: Manifest
    metrics: Mapping[str, Any]
    examples: Sequence[Mapping[str, Any]]
    pictures: Path
    prepared: Mapping[str, Any] = field(default_factory=dict)
    quantized: Mapping[str, Any] = field(default_factory=dict)
    health: Mapping[Path, str] = field(default_factory=dict)
    changes: Sequence[str] = ()


def report_page(story: Story) -> str:
    """report.html: self-contained, no script, nothing fetched."""
    sections = (
        _head, _trained_on, _results, _where, _training, _semantic_ids, _coverage, _changes, _examples, _notes,
    )  # fmt: skip
    style = (resources.files("training.report") / "style.css").read_text(encoding="utf-8")
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", f"{story.manifest.name}: training report"),
            tag("style", Markup(style)),
        ),
        tag("body", *(section(story) for section in sections)),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _head(story: Story) -> Markup:
    manifest, metrics = story.manifest, story.metrics
    main, baselines, leads = main_results(metrics)
    recall = headline_columns(metrics[main])[-2]
    kind = "encoder-decoder" if manifest.architecture == "seq2seq" else "decoder-only"
    subtitle = f"{kind} model, semantic IDs of {manifest.num_levels} tokens, {_items(story)} items"
    tiles = [_tile(metrics[main][recall], f"{recall}, {main}")]
    if baselines:
        best = max(baselines, key=lambda name: baselines[name][recall]["value"])
        tiles.append(_tile(baselines[best][recall], f"best baseline: {method_name(best)}"))
        if best in leads and recall in leads[best]:
            lead = leads[best][recall]
            tiles.append(_tile(lead, Markup(f"difference: {verdict(lead)}"), signed=True))
    reached = metrics["coverage"]
    share = reached["distinct_items"] / max(reached["catalog_size"], 1)
    lists = f"of the catalog is in some list of {reached.get('k', '')}"
    tiles.append(tag("div", tag("b", f"{share:.0%}"), tag("span", lists), class_="tile"))
    note = metrics.get("refit", {}).get("note")
    return join(
        [
            tag("header", tag("h1", manifest.name), tag("p", subtitle)),
            *([tag("p", note, class_="note")] if note else []),
            tag("div", *tiles, class_="tiles"),
        ]
    )


def _trained_on(story: Story) -> Markup:
    provenance, data, manifest = story.manifest.provenance, story.prepared, story.manifest
    counts = [f"{data[name]:,} {name}" for name in ("users", "items", "interactions") if name in data]
    split = data.get("split", {})
    facts: dict[str, object] = {
        "data": ", ".join([str(provenance.get("dataset", "")), *counts]).strip(", "),
        "from, to": f"{data['first_time'][:10]} to {data['last_time'][:10]}" if data.get("first_time") else None,
        "split": ", ".join(f"{count:,} {name}" for name, count in split.items()),
        "base model": provenance.get("base_model"),
        "method": provenance.get("method"),
        "semantic IDs": f"{manifest.num_levels} levels of {', '.join(map(str, manifest.codebook_sizes))} codes"
        + (f", {story.quantized['method'].replace('_', ' ')}" if "method" in story.quantized else ""),
        "history": f"the newest {manifest.prompt.max_history_items} items",
        "seed": provenance.get("seed"),
        "code": str(provenance.get("git_commit") or "")[:12],
        "libraries": ", ".join(f"{name} {number}" for name, number in provenance.get("libraries", {}).items()),
    }
    return join([tag("h2", "What was trained on what"), facts_table(facts)])


def _results(story: Story) -> Markup:
    metrics = story.metrics
    main = main_results(metrics)[0]
    names = headline_columns(metrics[main])
    parts = [
        tag("h2", "Results"),
        tag(
            "p",
            "Means over users, with 95 % bootstrap intervals. The full catalog is ranked, no candidates are sampled.",
        ),
        methods_table(metrics, main, names),
        leads_table(metrics),
        *_picture(story, "comparison.png", "bars of recall and NDCG for the model and each baseline"),
    ]
    if main == "test" and "validation" in metrics:
        told = "Weights and settings were chosen on validation, so its numbers flatter the model; test was not used."
        parts += [tag("h3", "Validation"), tag("p", told), methods_table(metrics, "validation", names)]
    return join([*parts, tag("h3", "Every cut-off"), plain_table(metrics, main)])


def _where(story: Story) -> Markup:
    told = "Targets that training never saw are those with count 0. Bars are the same metric for each kind of case."
    shown = _picture(story, "buckets.png", "recall by how often the target occurs and by length of the history")
    return join([tag("h2", "Where it is good, and where not"), tag("p", told), *shown]) if shown else Markup("")


def _training(story: Story) -> Markup:
    shown = _picture(story, "curves.png", "training loss, validation loss and validation recall over steps")
    reached = story.metrics.get("stages", {})
    said = "; ".join(f"after {stage}: {found['validation']['recall@10']:.4f}" for stage, found in reached.items())
    told = [tag("p", f"Validation recall@10 {said}.")] if said else []
    return join([tag("h2", "Training"), *told, *shown]) if shown or told else Markup("")


def _semantic_ids(story: Story) -> Markup:
    levels = levels_table(story.metrics, story.quantized.get("levels", []))
    health = [picture(file, caption, caption) for file, caption in story.health.items()]
    clusters = [
        [f"⟨{', '.join(map(str, row['codes']))}⟩", f"{row['items']:,}", "; ".join(row["titles"][:5])]
        for row in story.quantized.get("clusters_of_the_first_code", [])
    ]
    if not levels and not health and not clusters:
        return Markup("")
    item = story.metrics.get("likelihood", {}).get("item_log_likelihood")
    told = (
        "Accuracy: the true token is the likeliest of its level, the tokens before it given. Log-likelihood: over the "
        "full vocabulary"
        + (f"; of the whole item {item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}]" if item else "")
    )
    parts = [tag("h2", "Semantic IDs"), levels, tag("p", f"{told}.")]
    if clusters:
        parts += [tag("h3", "What shares a first code"), table(["code", "items", "such as"], clusters, class_="words")]
    return join([*parts, *([tag("div", *health, class_="pictures")] if health else [])])


def _coverage(story: Story) -> Markup:
    reached = story.metrics["coverage"]
    told = (
        f"{reached['distinct_items']:,} of {reached['catalog_size']:,} items are recommended to somebody. The further "
        "the blue curve is above the grey one, the more recommendations dwell on few items."
    )
    return join([tag("h2", "Coverage"), tag("p", told), *_picture(story, "coverage.png", "cumulative shares")])


def _changes(story: Story) -> Markup:
    if not story.changes:
        return Markup("")
    return join([tag("h2", "What changes for users"), tag("ul", *(tag("li", change) for change in story.changes))])


def _examples(story: Story) -> Markup:
    if not story.examples:
        return Markup("")
    told = f"{len(story.examples)} users of validation, drawn by chance and not chosen."
    cards = [_example(number, shown) for number, shown in enumerate(story.examples, start=1)]
    return join([tag("h2", "Examples"), tag("p", told), tag("div", *cards, class_="examples")])


def _example(number: int, shown: Mapping[str, Any]) -> Markup:
    older = [tag("li", f"… {shown['older']:,} before", class_="more")] if shown["older"] else []
    history = [tag("li", title) for title in shown["history"]]
    items = [tag("li", item["title"], **({"class_": "hit"} if item["hit"] else {})) for item in shown["items"]]
    missed = [] if any(item["hit"] for item in shown["items"]) else [tag("p", f"What came next: {shown['target']}")]
    return tag(
        "article",
        tag("h3", f"User {number}"),
        tag("h4", "history, oldest first"),
        tag("ul", *older, *history),
        tag("h4", "recommended"),
        tag("ol", *items),
        *missed,
        class_="example",
    )


def _notes(story: Story) -> Markup:
    protocol = [tag("li", note) for note in protocol_notes(story.metrics)]
    honest = [tag("li", note) for note in honest_notes(story.metrics, story.prepared)]
    return join(
        [
            tag("h2", "Protocol"),
            tag("ul", *protocol),
            tag("h2", "What to keep in mind"),
            tag("ul", *honest),
            tag("footer", f"Written by genrec for {story.manifest.name}. The numbers are in metrics.json beside it."),
        ]
    )


def _picture(story: Story, name: str, alt: str) -> list[Markup]:
    file = story.pictures / name
    return [picture(file, alt)] if file.is_file() else []


def _items(story: Story) -> str:
    return f"{story.metrics['coverage']['catalog_size']:,}"


def _tile(interval: Mapping[str, float], label: str, *, signed: bool = False) -> Markup:
    shape = "+.4f" if signed else ".4f"
    value = tag("b", f"{interval['value']:{shape}}")
    return tag("div", value, tag("span", span(interval, shape)), tag("span", label), class_="tile")
