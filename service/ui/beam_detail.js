/** One line about the prefix under the pointer, and what the catalog has below it. */

import { call } from "./api.js";
import { byId, debounced, el, percent, signed } from "./dom.js";
import { keyOf } from "./beam_layout.js";
import { tokens } from "./semantic_id.js";

const KINDS = { kept: "kept", pruned: "pruned", closed: "closed" };

/** Bind the line; gives the function that shows a node of the tree, null for none. */
export function beamDetail({ titleOf }) {
  const line = byId("tree-detail");
  const names = new Map();
  let current = null;

  function show(one) {
    current = one;
    if (one === null) {
      line.replaceChildren(el("span", { class: "muted" }, "Point at a prefix, or walk the tree with the arrow keys."));
      return;
    }
    const facts = [
      `log-probability ${signed(one.logProb)}`,
      `probability ${percent(Math.exp(one.logProb))}`,
      one.leaf ? null : `${one.items} allowed ${one.items === 1 ? "item" : "items"} below`,
    ];
    line.replaceChildren(
      tokens(one.codes),
      el("span", { class: `badge ${one.kind}` }, KINDS[one.kind]),
      el("span", {}, facts.filter(Boolean).join(" · ")),
      el("span", { class: "below muted" }, titleOf(one.codes) ?? below(one)),
    );
    if (!names.has(keyOf(one.codes))) soon(one);
  }

  const below = (one) => (names.get(keyOf(one.codes)) ?? []).slice(0, 4).join(" · ");

  const soon = debounced(150, async (one) => {
    if (current !== one) return;
    try {
      names.set(keyOf(one.codes), await namesBelow(one.codes));
    } catch {
      names.set(keyOf(one.codes), []); // the line does without; the next answer tells what is wrong
    }
    if (current === one) show(one);
  });

  return show;
}

async function namesBelow(codes) {
  const { json } = await call(`v1/tree?limit=4&prefix=${codes.join(",")}`);
  const examples = json.children.flatMap((child) => child.examples);
  return [...new Set(examples.map((item) => item.title ?? item.item_id))];
}
