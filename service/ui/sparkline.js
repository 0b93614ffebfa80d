/** The last readings of a number as a small line. */

import { svg } from "./dom.js";

const WIDTH = 100;
const HEIGHT = 30;

/** A line through `values`, null where there was none; from zero to the largest. */
export function sparkline(values, length) {
  const top = Math.max(...values.map((value) => value ?? 0), 1e-9);
  const at = (value, place) => [((length - values.length + place) / (length - 1)) * WIDTH, HEIGHT - ((value ?? 0) / top) * (HEIGHT - 2)];
  const points = values.map(at);
  const line = points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const under = points.length ? `${line}V${HEIGHT}H${points[0][0].toFixed(1)}Z` : "";
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "under", d: under }),
    svg("path", { d: line }),
  );
}
