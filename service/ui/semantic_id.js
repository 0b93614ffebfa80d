/** Semantic IDs as rows of coloured tokens: a hue for each level, a shade of it for each code. */

import { el } from "./dom.js";

const HUES = [272, 188, 62, 352, 138, 228, 24, 312];
const SPREAD = 34; // degrees that the codes of one level are apart at most

/** The CSS variables of a code at a level; the same for the same two numbers, always. */
export function shade(level, code) {
  const mixed = Math.imul(code + 1, 0x9e3779b1) >>> 0; // spreads neighbouring codes over all shades
  return {
    "--h": (HUES[level % HUES.length] + ((mixed & 0xff) / 255 - 0.5) * SPREAD).toFixed(1),
    "--v": (((mixed >>> 8) & 0xff) / 255).toFixed(2),
  };
}

/** A semantic ID as letters, for those who listen. */
export const spoken = (codes) => `semantic ID ${codes.join(" ")}`;

/** A semantic ID as tokens. */
export function tokens(codes) {
  return el(
    "span",
    { class: "tokens", role: "img", "aria-label": spoken(codes) },
    ...codes.map((code, level) => el("span", { class: "token", vars: shade(level, code) }, String(code))),
  );
}
