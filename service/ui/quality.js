/** The evaluation of a bundle beside its baselines: a table with intervals, drawn on one scale a metric. */

import { el, svg } from "./dom.js";

/** Those of published tables: a dozen columns would not fit. Of a bundle that has none of them, all are shown. */
const SHOWN = ["recall@5", "ndcg@5", "recall@10", "ndcg@10"];

/** `evaluation` of /v1/bundle -> elements. */
export function quality(evaluation) {
  const { methods, users, coverage, protocol } = evaluation;
  const measured = Object.keys(methods[0].metrics);
  const published = SHOWN.filter((name) => measured.includes(name));
  const metrics = published.length ? published : measured;
  const tops = Object.fromEntries(metrics.map((name) => [name, Math.max(...methods.map((one) => one.metrics[name]?.high ?? 0), 1e-9)]));
  const head = el("tr", {}, el("th", { scope: "col" }, `Test, ${users} users`), ...metrics.map((name) => el("th", { scope: "col" }, name)));
  const rows = methods.map((method, place) =>
    el("tr", { class: place === 0 ? "ours" : "" }, el("td", {}, method.name), ...metrics.map((name) => cell(method.metrics[name], tops[name]))),
  );
  const notes = Object.entries({
    ...protocol,
    ...(coverage.catalog_size ? { coverage: `${coverage.distinct_items} of ${coverage.catalog_size} items recommended to somebody` } : {}),
  });
  return [
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)),
    el("p", { class: "muted small" }, notes.map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`).join(" · ")),
  ];
}

function cell(estimate, top) {
  if (!estimate) return el("td", {}, "–");
  const x = (value) => ((value / top) * 100).toFixed(2);
  return el(
    "td",
    {},
    el(
      "div",
      { class: "estimate" },
      el("span", {}, estimate.value.toFixed(3), el("span", { class: "interval" }, ` [${estimate.low.toFixed(3)}, ${estimate.high.toFixed(3)}]`)),
      svg(
        "svg",
        { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("line", { class: "whisker", x1: x(estimate.low), x2: x(estimate.high), y1: 5, y2: 5 }),
        svg("rect", { class: "mean", x: Math.max(x(estimate.value) - 0.6, 0), y: 1, width: 1.2, height: 8 }),
      ),
    ),
  );
}
