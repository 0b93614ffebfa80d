/** Where the model's probability goes at a level: the head of a column of the beam tree. */

import { percent, svg } from "./dom.js";

const PARTS = [
  ["allowed", "open"],
  ["closed_by_filter", "filter"],
  ["closed_by_trie", "trie"],
];
const HEIGHT = 8;

/** The head of the column at `x`, `width` wide: name, counts, a bar of three parts, and what they are. */
export function massBar(level, x, width) {
  const { mass, kept } = level;
  let left = 0;
  const parts = PARTS.map(([part]) => {
    const from = left;
    left += mass[part] * width;
    return svg("rect", { class: `mass ${part}`, x: from.toFixed(2), y: 34, width: Math.max(left - from, 0).toFixed(2), height: HEIGHT });
  });
  const shown = PARTS.filter(([part]) => mass[part] >= 0.0005);
  const counts = `${kept.length} kept · ${level.pruned_total} pruned · ${level.closed_total} closed`;
  const said = PARTS.map(([part, name]) => `${percent(mass[part])} ${name}`).join(", ");
  return svg(
    "g",
    { class: "level", role: "img", "aria-label": `Level ${level.level}: ${counts}; probability: ${said}`, transform: `translate(${x.toFixed(1)} 0)` },
    svg("text", { class: "level-name", x: 0, y: 12 }, `Level ${level.level}`),
    svg("text", { class: "level-counts", x: 0, y: 27 }, counts),
    ...parts,
    svg("text", { class: "level-mass", x: 0, y: 56 }, ...shown.flatMap(([part, name], place) => [place ? " · " : "", svg("tspan", { class: part }, `${percent(mass[part])} ${name}`)])),
  );
}
