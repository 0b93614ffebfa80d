/** The ranked answer: one card an item, with its bars, its tokens and where it comes from. */

import { aboutOf, titleOf } from "./catalog.js";
import { byId, el, percent, signed } from "./dom.js";
import { tokens } from "./semantic_id.js";

/** Bind the list. `pointed(item or null)` is called when the pointer or the focus comes to a card and leaves it. */
export function cards({ columns, pointed, added }) {
  const list = byId("cards");

  function card(item, top) {
    const title = titleOf(item, columns());
    return el(
      "li",
      {
        class: `item ${item.source}`,
        id: `item-${item.rank}`,
        tabindex: "-1",
        mouseenter: () => pointed(item),
        mouseleave: () => pointed(null),
      },
      el("span", { class: "rank", "aria-label": `Rank ${item.rank}` }, String(item.rank)),
      el(
        "div",
        { class: "item-body" },
        el("h3", { class: "item-title", title }, title),
        el("p", { class: "item-about" }, aboutOf(item, columns()) || item.item_id),
        el(
          "div",
          { class: "item-foot" },
          tokens(item.semantic_id),
          item.source === "popular" ? el("span", { class: "badge popular" }, "popular, not from the model") : null,
        ),
      ),
      item.score === null ? null : bars(item, top),
      el("button", { type: "button", class: "icon add", "aria-label": `Add ${title} to the history`, title: "Add to the history", click: () => added(item) }, "+"),
    );
  }

  return {
    /** Draw an answer. */
    show(answer) {
      const best = (name) => Math.max(...answer.items.map((item) => item[name] ?? -Infinity));
      const top = { score: best("score"), probability: best("probability") };
      list.style.setProperty("--rows", String(Math.max(Math.ceil(answer.items.length / 2), 1)));
      list.replaceChildren(...answer.items.map((item) => card(item, top)));
    },
    /** Take the cards away. */
    clear: () => list.replaceChildren(),
    /** Bring the card of a rank into view, with the focus. */
    focus(rank) {
      const target = byId(`item-${rank}`);
      target.scrollIntoView({ block: "center" });
      target.focus({ preventScroll: true });
    },
    /** Mark the card of a rank, null for none. */
    mark(rank) {
      for (const one of list.children) one.classList.toggle("marked", one.id === `item-${rank}`);
    },
  };
}

function bars(item, top) {
  const bar = (name, share, text, explained) =>
    el(
      "div",
      { class: `measure ${name}`, title: explained },
      el("span", { class: "measure-name" }, name),
      el("span", { class: "measure-value" }, text),
      el("span", { class: "track", "aria-hidden": "true" }, el("span", { class: "fill", vars: { "--share": Math.max(share, 0.01).toFixed(4) } })),
    );
  return el(
    "div",
    { class: "measures" },
    item.probability === null
      ? null
      : bar("probability", item.probability / (top.probability || 1), percent(item.probability), "Under the model, among the items that may be answered; the bar is relative to the largest"),
    bar("score", Math.exp(item.score - top.score), signed(item.score, 3), "Log-probability of its tokens, by their number; the bar is relative to the largest"),
  );
}
