/** The status page: what is served, how good it is, and how it does right now. */

import { Problem, call, onLocked } from "./api.js";
import { byId, el } from "./dom.js";
import { parse, quantile, total } from "./exposition.js";
import { askForKey } from "./key_dialog.js";
import { quality } from "./quality.js";
import { sparkline } from "./sparkline.js";

const POLL_MS = 2000;
const KEEP = 30; // a minute
const ANSWERING = ({ endpoint }) => /recommend|score/.test(endpoint ?? "");

/** name, unit, digits, (before, after, seconds) -> number or null. */
const NUMBERS = [
  ["Requests", "/s", 1, (a, b, s) => rate(a, b, s, "genrec_requests_total", ANSWERING)],
  ["p50", "ms", 0, (a, b) => milliseconds(quantile(0.5, a, b, "genrec_request_seconds", ANSWERING))],
  ["p99", "ms", 0, (a, b) => milliseconds(quantile(0.99, a, b, "genrec_request_seconds", ANSWERING))],
  ["Queue", "waiting", 0, (_, b) => total(b, "genrec_queue_depth")],
  ["Batch", "requests", 1, (a, b) => meanBetween(a, b, "genrec_batch_size")],
  ["Refused (4xx)", "/s", 1, (a, b, s) => rate(a, b, s, "genrec_requests_total", ({ status }) => /^4/.test(status))],
  ["Errors (5xx)", "/s", 1, (a, b, s) => rate(a, b, s, "genrec_requests_total", ({ status }) => /^5/.test(status))],
];

let before = null;
let info = null;
let locked = { facts: false, numbers: false };
const kept = NUMBERS.map(() => []);

const milliseconds = (seconds) => (seconds === null ? null : seconds * 1000);

function rate(a, b, seconds, name, wanted) {
  return Math.max(((total(b, name, wanted) ?? 0) - (total(a, name, wanted) ?? 0)) / seconds, 0);
}

function meanBetween(a, b, name) {
  const grown = (part) => (total(b, `${name}_${part}`) ?? 0) - (total(a, `${name}_${part}`) ?? 0);
  return grown("count") > 0 ? grown("sum") / grown("count") : null;
}

async function poll() {
  await drawState();
  if (!locked.numbers) await drawNumbers();
  setTimeout(poll, POLL_MS);
}

async function drawState() {
  try {
    await call("ready");
    tell(true, "Ready", "");
    if (info === null && !locked.facts) await drawFacts();
  } catch (error) {
    if (isLocked(error)) locked = { facts: true, numbers: true }; // who gave no key is not asked again
    else tell(false, error instanceof Problem ? "Not ready" : "Not reachable", error.message);
    info = null; // another bundle may come up
  }
}

async function drawNumbers() {
  try {
    const at = performance.now();
    const samples = parse((await call("metrics")).text);
    if (before !== null) drawLive(before.samples, samples, (at - before.at) / 1000);
    before = { at, samples };
  } catch (error) {
    locked.numbers = isLocked(error);
    if (locked.numbers) byId("answered").textContent = "The numbers need a key.";
  }
}

const isLocked = (error) => error instanceof Problem && error.status === 401;

function tell(good, state, more) {
  byId("banner").className = `banner ${good ? "good" : "bad"}`;
  if (byId("state").textContent !== state) byId("state").textContent = state; // spoken only when it changes
  byId("state-more").textContent = more;
}

function drawLive(a, b, seconds) {
  const cells = NUMBERS.map(([name, unit, digits, read], place) => {
    const value = read(a, b, seconds);
    kept[place] = [...kept[place], value].slice(-KEEP);
    const shown = value === null ? "–" : value.toFixed(digits);
    return el("div", {}, el("dt", {}, name), el("dd", {}, el("span", { class: "number" }, shown), el("span", { class: "unit" }, unit), sparkline(kept[place], KEEP)));
  });
  byId("live").replaceChildren(...cells);
  byId("answered").textContent = `Answered since the start, by status: ${byStatus(b)}.`;
}

function byStatus(samples) {
  const statuses = [...new Set(samples.filter((one) => one.name === "genrec_requests_total").map((one) => one.labels.status))].sort();
  const counted = (status) => total(samples, "genrec_requests_total", (labels) => labels.status === status).toLocaleString("en");
  return statuses.map((status) => `${status} × ${counted(status)}`).join(", ") || "nothing yet";
}

async function drawFacts() {
  info = (await call("info")).json;
  const { bundle, limits } = info;
  byId("bundle").textContent = `${bundle.name} ${bundle.version}`;
  list("model", {
    Bundle: `${bundle.name}, version ${bundle.version}`,
    Sealed: info.created_at,
    Architecture: info.architecture,
    "Semantic IDs": `${info.num_levels} levels of ${info.codebook_sizes.join(", ")} codes`,
    Device: `${info.device}, ${info.dtype}`,
    Engine: info.engine,
    "Beams by default": info.num_beams,
    "Length penalty": info.length_penalty,
    "History left out": info.exclude_history ? "yes, by default" : "no, by default",
    "Service version": info.service_version,
  });
  list("catalog", {
    Items: info.num_items.toLocaleString("en"),
    "Switched off": `${info.items_off}, at catalog version ${info.catalog_version}`,
    Columns: Object.entries(info.columns).map(([name, kind]) => `${name} (${kind})`).join(", ") || "none",
    "Most items (k)": limits.max_k,
    "History read": `newest ${limits.history_items_used}, at most ${limits.max_history_items} sent`,
    "Proof up to": `${limits.max_proof_beams} beams`,
    "Default deadline": `${limits.default_timeout_ms} ms`,
    "Largest body": `${Math.round(limits.max_body_bytes / 1024)} KiB`,
  });
  drawCard((await call("v1/bundle")).json);
}

function drawCard({ evaluation, card }) {
  if (evaluation !== null) byId("quality").replaceChildren(...quality(evaluation));
  byId("card-section").hidden = card === null;
  byId("card").textContent = card ?? "";
}

function list(id, facts) {
  byId(id).replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

onLocked(askForKey);
poll();
