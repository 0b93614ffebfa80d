/** The playground: one state, drawn by the parts, asked of the service whenever it changes. */

import { address, call, onLocked } from "./api.js";
import { answerView } from "./answer_view.js";
import { fetchItems, remember } from "./catalog.js";
import { byId, debounced, el } from "./dom.js";
import { exampleButtons, fetchExamples } from "./examples.js";
import { filters } from "./filters.js";
import { historyList, joined } from "./history.js";
import { askForKey } from "./key_dialog.js";
import { notices } from "./notices.js";
import { options } from "./options.js";
import { requestOf } from "./request.js";
import { searchBox } from "./search_box.js";
import { TABS, fromHash, nothing, toHash } from "./share_link.js";
import { tabs } from "./tabs.js";

let state = fromHash(location.hash);
let info = null;
let running = null;
let examples = [];

const columns = () => info?.columns ?? {};
const say = (text) => (byId("said").textContent = text);
const notice = notices({ again: () => start() });
const history = historyList({ columns, changed: (ids) => change({ history: ids, asked: false }) });
const knobs = options({ changed: change });
const filter = filters({ changed: change });
const view = answerView({ columns, added: append });
const panels = tabs(TABS, {
  opened(tab) {
    state = { ...state, tab };
    putLink();
    view.opened(tab);
    if (tab === "tree" ? view.lacksTree() : tab === "timing" && view.hasTree()) ask(); // the tree costs time of its own
  },
});

/** Take over a part of the state: draw it, put it into the link, ask for its answer. */
function change(part) {
  state = { ...state, ...part };
  putLink();
  draw();
  notice.clear();
  if (state.history.length || state.asked) view.wait(true); // at once: what stands there is no longer the answer
  askSoon();
}

function append(item) {
  change({ history: [...state.history, item.item_id], asked: false });
  say(joined(item, columns()));
}

function putLink() {
  const hash = toHash(state);
  globalThis.history.replaceState(null, "", hash === "" ? location.pathname : `#${hash}`);
}

function draw() {
  history.show(state.history);
  knobs.show(state, info);
  filter.show(state);
  panels.show(state.tab);
}

/** Learn what is served, as often as it takes; then ask. */
async function start() {
  try {
    info = (await call("info")).json;
  } catch (error) {
    fail(error);
    return;
  }
  byId("bundle").textContent = `${info.bundle.name} ${info.bundle.version}`;
  byId("bundle").title = `${info.num_items} items, ${info.num_levels} levels`;
  knobs.allow(info);
  filter.allow(info);
  draw();
  await Promise.all([fetchItems(state.history), drawExamples()]);
  draw();
  await ask();
}

async function drawExamples() {
  try {
    examples = await fetchExamples(columns());
    byId("examples").replaceChildren(...drawnExamples());
  } catch (error) {
    fail(error);
  }
}

const drawnExamples = () => exampleButtons(examples, columns(), (ids) => change({ history: ids, asked: ids.length === 0 }));

const askSoon = debounced(180, () => ask());

async function ask() {
  running?.abort();
  if (info === null) return;
  if (state.history.length === 0 && !state.asked) {
    view.clear();
    notice.empty([byId("welcome").content.cloneNode(true), el("div", { class: "examples" }, ...drawnExamples())]);
    byId("examples-box").hidden = true;
    say("");
    return;
  }
  byId("examples-box").hidden = false;
  const mine = (running = new AbortController());
  const body = requestOf(state);
  view.wait(true);
  try {
    const answer = await call("v1/recommend", { body, signal: mine.signal });
    remember(answer.json.items.map(({ item_id, semantic_id, metadata }) => ({ item_id, semantic_id, metadata })));
    notice.clear();
    view.show(body, answer, address("v1/recommend"), address(""));
    say(view.summary(answer.json));
    if (answer.json.bundle.version !== info.bundle.version) start(); // another bundle was put in its place
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (running === mine) view.wait(false);
  }
}

function fail(error) {
  view.clear();
  notice.show(error);
  say(byId("notice").querySelector("h3").textContent);
}

searchBox({ columns, chosen: append, failed: fail });
onLocked(askForKey);
byId("recommend").addEventListener("click", () => {
  state = { ...state, asked: state.history.length === 0 };
  putLink();
  ask();
});
byId("clear").addEventListener("click", () => {
  change({ ...nothing(), tab: state.tab });
  byId("search").focus();
});
byId("share").addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href).then(
    () => say("Link copied."),
    () => say("The browser refused; copy the address of the page."),
  );
});
addEventListener("hashchange", () => {
  state = fromHash(location.hash);
  start();
});
draw();
start();
