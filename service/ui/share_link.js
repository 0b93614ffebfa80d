/**
 * The state of the page as the hash of its address, and back.
 *
 * What a link says is a stranger's: everything is checked and bounded here, and what does not fit is dropped.
 * A key is never part of it.
 */

export const TABS = ["tree", "timing", "request", "response", "curl", "python"];

const AGAIN = new Map([["no", true], ["yes", false]]); // no object: a link may say "constructor"
const MAX_ITEMS = 1000;
const MAX_HASH = 64 * 1024;
const MAX_ID = 512;
const CONTROL = /[\u0000-\u001f\u007f]/;

/** What the page begins with. `asked`: answer even without a history. */
export const nothing = () => ({
  history: [],
  k: 10,
  beams: null,
  excludeHistory: null,
  proveExact: false,
  where: null,
  includeIds: null,
  tab: "tree",
  asked: false,
});

/** State -> hash, without the leading "#"; only what differs from the beginning. */
export function toHash(state) {
  const link = new URLSearchParams();
  for (const id of state.history) link.append("h", id);
  if (state.k !== 10) link.set("k", state.k);
  if (state.beams !== null) link.set("beams", state.beams);
  if (state.excludeHistory !== null) link.set("again", state.excludeHistory ? "no" : "yes");
  if (state.proveExact) link.set("prove", "yes");
  if (state.where !== null) link.set("where", JSON.stringify(state.where));
  if (state.includeIds !== null) link.set("only", JSON.stringify(state.includeIds));
  if (state.tab !== "tree") link.set("tab", state.tab);
  if (state.asked && state.history.length === 0) link.set("asked", "yes");
  return link.toString();
}

/** Hash -> state. Never throws; hostile content becomes less state, not more. */
export function fromHash(hash) {
  const state = nothing();
  const link = new URLSearchParams(hash.length > MAX_HASH ? "" : hash.replace(/^#/, ""));
  state.history = link.getAll("h").filter(isId).slice(0, MAX_ITEMS);
  state.k = whole(link.get("k")) ?? 10;
  state.beams = whole(link.get("beams"));
  state.excludeHistory = AGAIN.get(link.get("again")) ?? null;
  state.proveExact = link.get("prove") === "yes";
  state.where = plainObject(link.get("where"));
  state.includeIds = ids(link.get("only"));
  state.tab = TABS.includes(link.get("tab")) ? link.get("tab") : "tree";
  state.asked = link.get("asked") === "yes" && state.history.length === 0;
  return state;
}

const isId = (value) => typeof value === "string" && value.length > 0 && value.length <= MAX_ID && !CONTROL.test(value);

function whole(text) {
  return /^[1-9][0-9]{0,4}$/.test(text ?? "") && Number(text) <= 10_000 ? Number(text) : null;
}

function json(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}

function plainObject(text) {
  const value = json(text);
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
}

function ids(text) {
  const value = json(text);
  return Array.isArray(value) && value.length <= MAX_ITEMS && value.every(isId) ? value : null;
}
