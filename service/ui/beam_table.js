/** The beam tree as tables, for those who read rather than look. */

import { el, percent, signed } from "./dom.js";

const ROWS = [
  ["kept", (level) => level.kept.length],
  ["pruned", (level) => level.pruned_total],
  ["closed", (level) => level.closed_total],
];

/** A fold that makes its tables when it is first opened. */
export function beamTable(levels) {
  const fold = el("details", { class: "fold" }, el("summary", {}, "The same as tables"));
  fold.addEventListener("toggle", () => fold.append(...levels.map(table)), { once: true });
  return fold;
}

function table(level) {
  const { mass } = level;
  const caption = `Level ${level.level}: ${percent(mass.allowed)} of the probability on allowed codes, ${percent(mass.closed_by_filter)} closed by the filter, ${percent(mass.closed_by_trie)} by the trie`;
  return el(
    "table",
    {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...["Prefix", "Fate", "Log-probability", "Items below"].map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...ROWS.flatMap(([fate, total]) => rows(level, fate, total(level)))),
  );
}

function rows(level, fate, total) {
  const listed = level[fate].map((one) =>
    el("tr", {}, el("td", {}, one.semantic_id.join(" ")), el("td", {}, fate), el("td", {}, signed(one.log_prob)), el("td", {}, String(one.items))),
  );
  const missing = total - level[fate].length;
  return missing > 0 ? [...listed, el("tr", {}, el("td", { colspan: 4 }, `and ${missing} more ${fate}`))] : listed;
}
