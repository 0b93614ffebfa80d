/** The items this page has seen, by id, and what is still to be asked of them. */

import { Problem, call } from "./api.js";

const AT_ONCE = 6;
const seen = new Map();

/** Keep what came with a list or an answer. */
export function remember(items) {
  for (const item of items) seen.set(item.item_id, { ...seen.get(item.item_id), ...item });
}

/** An item that has been seen, null for an id that the catalog does not have, undefined for one not asked for. */
export const known = (id) => seen.get(id);

/** Everything seen, unknown ids left out. */
export const everything = () => [...seen.values()].filter((item) => item !== null);

/** Fetch what is not known of these ids. Those that fail for other reasons stay undefined. */
export async function fetchItems(ids) {
  const missing = [...new Set(ids)].filter((id) => !seen.has(id));
  const next = async () => {
    for (let id = missing.shift(); id !== undefined; id = missing.shift()) await fetchItem(id);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
}

async function fetchItem(id) {
  try {
    seen.set(id, (await call(`v1/items/${encodeURIComponent(id)}`)).json);
  } catch (error) {
    if (error instanceof Problem && error.status === 404) seen.set(id, null);
  }
}

/** The column that names an item, as the service's own search picks it. */
export function titleColumn(columns) {
  const texts = Object.keys(columns).filter((name) => columns[name] === "string");
  return ["title", "name", ...texts].find((name) => texts.includes(name)) ?? null;
}

/** What to call an item. */
export function titleOf(item, columns) {
  const title = item.metadata?.[titleColumn(columns)];
  return typeof title === "string" && title !== "" ? title : item.item_id;
}

/** Its other metadata in one line. */
export function aboutOf(item, columns) {
  const title = titleColumn(columns);
  return Object.keys(columns)
    .filter((name) => name !== title)
    .map((name) => item.metadata?.[name])
    .filter((value) => value !== null && value !== undefined && value !== "" && !(Array.isArray(value) && !value.length))
    .map((value) => (Array.isArray(value) ? value.join(", ") : String(value)))
    .join(" · ");
}
