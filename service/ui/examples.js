/** Histories to begin with, made from the most popular items of whatever catalog this is. */

import { call } from "./api.js";
import { known, remember, titleColumn, titleOf } from "./catalog.js";
import { el } from "./dom.js";

const LOOK_AT = 100;
const LONG = 4;
const GROUPS = 3;

/** Fetch examples: [{name, ids}]; groups that share a word of metadata, or else popular items. */
export async function fetchExamples(columns) {
  const { json } = await call(`v1/items?limit=${LOOK_AT}`);
  remember(json.items);
  const groups = grouped(json.items, columns);
  const popular = json.items.slice(0, LONG).map((item) => item.item_id);
  return [...groups, { name: "The most popular", ids: popular }].filter((one) => one.ids.length > 0);
}

function grouped(items, columns) {
  const title = titleColumn(columns);
  const words = Object.keys(columns).filter((name) => name !== title && /string/.test(columns[name]));
  const members = new Map();
  for (const item of items) {
    for (const value of words.flatMap((name) => item.metadata[name] ?? [])) {
      if (!members.has(value)) members.set(value, []);
      members.get(value).push(item.item_id);
    }
  }
  const taken = new Set();
  const groups = [];
  for (const [name, ids] of [...members].filter(([, all]) => all.length >= LONG && all.length < items.length * 0.35).sort((a, b) => b[1].length - a[1].length)) {
    const own = ids.filter((id) => !taken.has(id)).slice(0, LONG);
    if (own.length < LONG || groups.length === GROUPS) continue;
    own.forEach((id) => taken.add(id));
    groups.push({ name, ids: own });
  }
  return groups;
}

/** Them as buttons; `chosen(ids)` takes a history, an empty one for the fallback. */
export function exampleButtons(examples, columns, chosen) {
  const button = ({ name, ids }) =>
    el(
      "button",
      { type: "button", class: "example", click: () => chosen(ids) },
      el("span", { class: "example-name" }, name),
      el("span", { class: "example-items" }, ids.length ? ids.map((id) => titleOf(known(id), columns)).join(", ") : "No history: popular items are answered"),
    );
  return [...examples, { name: "Nobody yet", ids: [] }].map(button);
}
