"""The tables of the report: methods with intervals, the model's lead, levels, facts. Knows numbers and markup."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.rank_table import MODEL
from training.report.html import Markup, table, tag
from training.results import main_results, method_name

Interval = Mapping[str, float]


def model_name(metrics: Mapping[str, Any]) -> str:
    """Whose metrics they are: those of a refitted bundle are of the run before."""
    return "the run before, without test" if "refit" in metrics else method_name(MODEL)


def methods_table(metrics: Mapping[str, Any], split: str, names: Sequence[str]) -> Markup:
    """A row a method, the model first; a column a metric, all bars of a column on one scale."""
    main, baselines, _ = main_results(metrics)
    others = baselines if split == main else metrics.get("validation_baselines", {})
    methods = {MODEL: metrics[split], **others}
    named = {method: method_name(method) for method in methods} | {MODEL: model_name(metrics)}
    tops = {name: max(max(cells[name]["high"] for cells in methods.values()), 1e-9) for name in names}
    rows = [
        [named[method], *(interval_cell(cells[name], tops[name]) for name in names)]
        for method, cells in methods.items()
    ]
    return table([f"{split}, {metrics['users'][split]:,} users", *names], rows, class_="methods")


def plain_table(metrics: Mapping[str, Any], split: str) -> Markup:
    """Every metric of every method, without intervals."""
    main, baselines, _ = main_results(metrics)
    others = baselines if split == main else metrics.get("validation_baselines", {})
    methods = {MODEL: metrics[split], **others}
    rows = [[name, *(f"{cells[name]['value']:.4f}" for cells in methods.values())] for name in metrics[split]]
    return table([split, model_name(metrics), *map(method_name, others)], rows)


def leads_table(metrics: Mapping[str, Any]) -> Markup:
    """The model less each other method, and what the interval allows to say of it."""
    _, _, leads = main_results(metrics)
    names = list(next(iter(leads.values()), {}))
    rows = [
        [
            f"{model_name(metrics)} − {method_name(other)}",
            *(_lead(lead[name]) for name in names),
            verdict(lead[names[0]]),
        ]
        for other, lead in leads.items()
    ]
    return table(["difference on the same users", *names, f"by {names[0]}"], rows) if rows else Markup("")


def verdict(lead: Interval) -> Markup:
    """Better, worse, or neither: whether zero lies within the interval."""
    if lead["low"] > 0:
        return tag("span", "better", class_="better")
    if lead["high"] < 0:
        return tag("span", "worse", class_="worse")
    return tag("span", "no clear difference", class_="level")


def interval_cell(interval: Interval, top: float) -> Markup:
    """A mean, its interval as a bar on a scale from 0 to `top`, and as numbers."""
    return Markup(
        tag("span", f"{interval['value']:.4f}", class_="value")
        + _bar(interval, top)
        + tag("span", span(interval, ".4f"), class_="range")
    )


def span(interval: Interval, shape: str) -> str:
    """The two ends."""
    return f"{interval['low']:{shape}} to {interval['high']:{shape}}"


def facts_table(facts: Mapping[str, object]) -> Markup:
    """Names and values; those that are None or empty are left out."""
    rows = [[name, str(value)] for name, value in facts.items() if value not in (None, "")]
    return table(["", ""], rows, class_="facts")


def levels_table(metrics: Mapping[str, Any], levels: Sequence[Mapping[str, Any]]) -> Markup:
    """What each level of the semantic IDs holds, and how well the model knows it; entropy as a share of the largest."""
    measured = {row["level"]: row for row in metrics.get("likelihood", {}).get("levels", [])}
    made = {row["level"]: row for row in levels}
    rows = []
    for level in sorted({*measured, *made}):
        codes, known = made.get(level, {}), measured.get(level, {})
        rows.append(
            [
                f"level {level}",
                f"{codes['codes_used']:,} of {codes['size']:,}" if "size" in codes else "–",
                f"{codes['entropy_share']:.0%}" if "entropy_share" in codes else "–",
                f"{known['accuracy']:.4f}" if known else "–",
                f"{known['log_likelihood']:.3f}" if known else "–",
            ]
        )
    head = ["", "codes used", "entropy", "accuracy", "log-likelihood, nats"]
    return table(head, rows) if rows else Markup("")


def _lead(lead: Interval) -> Markup:
    return Markup(
        tag("span", f"{lead['value']:+.4f}", class_="value") + tag("span", span(lead, "+.4f"), class_="range")
    )


def _bar(interval: Interval, top: float) -> Markup:
    low, value, high = (100 * min(interval[end] / top, 1.0) for end in ("low", "value", "high"))
    ends = {"x1": f"{low:.1f}", "x2": f"{high:.1f}", "y1": "5", "y2": "5"}
    return tag(
        "svg",
        tag("line", x1="0", x2="100", y1="5", y2="5", stroke="#e1e7ec", stroke_width="1.5"),
        tag("line", stroke="#8fb3da", stroke_width="3", stroke_linecap="round", **ends),
        tag("circle", cx=f"{value:.1f}", cy="5", r="3", fill="#2563a8"),
        viewBox="-4 0 108 10",
        aria_hidden="true",
    )
