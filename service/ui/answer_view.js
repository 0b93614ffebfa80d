/** An answer in all its forms: cards, beam tree, waterfall, request, response, code. */

import { beamDetail } from "./beam_detail.js";
import { keyOf } from "./beam_layout.js";
import { beamTree } from "./beam_tree.js";
import { cards } from "./cards.js";
import { known, titleOf as nameOf } from "./catalog.js";
import { asCurl, asPython } from "./code_samples.js";
import { byId, el } from "./dom.js";
import { withoutTree } from "./request.js";
import { waterfall } from "./waterfall.js";

/** Bind the places. `added(item)` is called for an item to be added to the history. */
export function answerView({ columns, added }) {
  let last = null;
  let ranks = new Map();
  let code = { curl: "", python: "", request: "", response: "" };

  const rankOf = (codes) => ranks.get(keyOf(codes))?.rank ?? null;
  const titleOf = (codes) => {
    const item = ranks.get(keyOf(codes));
    return item ? nameOf(item, columns()) : null;
  };
  const list = cards({ columns, added, pointed: (item) => tree.light(item?.semantic_id ?? null) });
  const tree = beamTree({
    titleOf,
    rankOf,
    detail: beamDetail({ titleOf }),
    opened: (codes) => list.focus(rankOf(codes)),
    pointed: (codes) => list.mark(codes === null ? null : rankOf(codes)),
  });

  function drawTiming() {
    const room = byId("panel-timing").clientWidth;
    if (last !== null && room > 0) byId("timing").replaceChildren(waterfall(last.json.timing_ms, last.timing, room));
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const done = await navigator.clipboard.writeText(code[button.dataset.copy]).then(() => "Copied", () => "Not allowed");
      button.textContent = done;
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  return {
    /** Draw an answer and the request that it is for. */
    show(body, answer, url, root) {
      last = { ...answer, body };
      const { json, text } = answer;
      ranks = new Map(json.items.filter((item) => item.source === "model").map((item) => [keyOf(item.semantic_id), item]));
      byId("answer").hidden = false;
      byId("panels").hidden = false;
      list.show(json);
      showFacts(json, columns());
      tree.show(body.explain ? (json.explain ?? null) : undefined, json.bundle.version);
      code = {
        request: JSON.stringify(body, null, 2),
        response: JSON.stringify(json, null, 2),
        curl: asCurl(url, withoutTree(body)),
        python: asPython(root.replace(/\/$/, ""), withoutTree(body)),
      };
      for (const [name, shown] of Object.entries(code)) byId(`code-${name}`).textContent = shown;
      byId("response-size").textContent = `${text.length.toLocaleString("en")} characters`;
      drawTiming();
    },
    /** A tab was opened: what depends on its width can be drawn now. */
    opened(tab) {
      if (tab === "timing") drawTiming();
    },
    /** Whether there is an answer that was not asked with a tree. */
    lacksTree: () => last !== null && !last.body.explain,
    /** Whether there is an answer that took the time to draw one. */
    hasTree: () => last?.body.explain === true,
    /** Say that a new answer is on its way. */
    wait(on) {
      if (on) byId("answer").hidden = false;
      byId("answer").setAttribute("aria-busy", String(on));
      byId("loading").hidden = !on;
    },
    /** Take everything away. */
    clear() {
      last = null;
      byId("answer").hidden = true;
      byId("panels").hidden = true;
      byId("loading").hidden = true;
      list.clear();
      byId("facts").replaceChildren();
      tree.show(undefined);
    },
    /** One sentence for those who listen. */
    summary: (json) => `${json.items.length} recommendations${json.items[0]?.source === "popular" ? ", popular items" : ""}.`,
  };
}

function showFacts(json, columns) {
  const popular = json.items.some((item) => item.source === "popular");
  const unknown = json.unknown_items.map((id) => (known(id) ? nameOf(known(id), columns) : id));
  const badge = (kind, text, title) => el("span", { class: `badge ${kind}`, title }, text);
  byId("facts").replaceChildren(
    ...[
      badge("plain", `${json.items.length} items`),
      json.exact === true ? badge("exact", "proven exact", "No other allowed item scores higher than the last one") : null,
      json.exact === false ? badge("beam", "best found", "A wider beam could find others; turn on the proof to know") : null,
      popular ? badge("popular", "popular items", "Nothing in the history is known, so these come from their popularity") : null,
      json.truncated ? badge("plain", `newest ${json.history_used} read`, "The model reads no more of a history") : null,
      unknown.length ? badge("popular", `${unknown.length} unknown ignored`, unknown.join(", ")) : null,
      badge("plain", `${json.timing_ms.total.toFixed(0)} ms${json.explain ? " with its tree" : ""}`),
    ].filter(Boolean),
  );
}
