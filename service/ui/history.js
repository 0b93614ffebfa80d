/** The history as a list, oldest first: reorder by drag or by buttons, drop, and see which ids nobody knows. */

import { known, titleOf } from "./catalog.js";
import { byId, el } from "./dom.js";
import { spoken, tokens } from "./semantic_id.js";

/** Bind the list. `changed(ids)` is called with each new order; `columns()` tells the catalog's columns. */
export function historyList({ columns, changed }) {
  const list = byId("history");
  let ids = [];
  let dragged = -1;

  function put(next, focus) {
    changed(next);
    const target = focus && list.querySelector(focus);
    (target ?? byId("search")).focus();
  }

  function move(from, to) {
    const next = [...ids];
    next.splice(to, 0, ...next.splice(from, 1));
    return next;
  }

  function drop(place) {
    const next = ids.filter((_, index) => index !== place);
    put(next, next.length ? `[data-place="${Math.min(place, next.length - 1)}"] .drop` : null);
  }

  function step(place, by) {
    const to = place + by;
    const kind = by < 0 ? ".earlier" : ".later";
    const other = by < 0 ? ".later" : ".earlier";
    put(move(place, to), `[data-place="${to}"] ${to === 0 || to === ids.length - 1 ? other : kind}`);
  }

  function entry(id, place) {
    const item = known(id);
    const title = item ? titleOf(item, columns()) : id;
    const control = (kind, label, sign, disabled, action) =>
      el("button", { type: "button", class: `icon ${kind}`, "aria-label": label, title: label, disabled, click: action }, sign);
    return el(
      "li",
      {
        class: item === null ? "entry unknown" : "entry",
        draggable: "true",
        "data-place": place,
        dragstart: (event) => {
          dragged = place;
          event.dataTransfer.effectAllowed = "move";
          event.dataTransfer.setData("text/plain", title);
          event.currentTarget.classList.add("dragged");
        },
        dragend: (event) => event.currentTarget.classList.remove("dragged", "over"),
        dragover: (event) => {
          if (dragged < 0) return;
          event.preventDefault();
          event.currentTarget.classList.add("over");
        },
        dragleave: (event) => event.currentTarget.classList.remove("over"),
        drop: (event) => {
          event.preventDefault();
          if (dragged >= 0 && dragged !== place) changed(move(dragged, place));
          dragged = -1;
        },
      },
      el("span", { class: "grip", "aria-hidden": "true" }),
      el(
        "span",
        { class: "entry-text" },
        el("span", { class: "entry-title", title }, title),
        item === null ? el("span", { class: "warning" }, "not in the catalog, will be ignored") : null,
        item ? tokens(item.semantic_id) : null,
      ),
      control("earlier", `Move ${title} earlier`, "↑", place === 0, () => step(place, -1)),
      control("later", `Move ${title} later`, "↓", place === ids.length - 1, () => step(place, 1)),
      control("drop", `Remove ${title}`, "×", false, () => drop(place)),
    );
  }

  return {
    /** Draw these ids. */
    show(next) {
      ids = next;
      list.replaceChildren(...ids.map(entry));
      byId("history-ends").hidden = ids.length === 0;
      byId("clear").hidden = ids.length === 0;
      byId("history-count").textContent = ids.length ? String(ids.length) : "";
    },
  };
}

/** What a screen reader is told when an item joins the history. */
export const joined = (item, columns) => `${titleOf(item, columns)} added to the history, ${spoken(item.semantic_id)}.`;
