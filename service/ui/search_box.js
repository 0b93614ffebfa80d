/** Search by title: the combobox pattern of the ARIA guide, with results as one types. */

import { call } from "./api.js";
import { aboutOf, remember, titleOf } from "./catalog.js";
import { byId, debounced, el } from "./dom.js";
import { tokens } from "./semantic_id.js";

const LIMIT = 12;

/** Bind the box. `chosen(item)` is called with each item picked; `columns()` tells the catalog's columns. */
export function searchBox({ columns, chosen, failed }) {
  const input = byId("search");
  const list = byId("search-results");
  const note = byId("search-note");
  let found = [];
  let active = -1;
  let running = null;

  function close() {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    active = -1;
  }

  function activate(place) {
    active = (place + found.length) % found.length;
    for (const [index, option] of [...list.children].entries()) {
      option.setAttribute("aria-selected", String(index === active));
      if (index === active) option.scrollIntoView({ block: "nearest" });
    }
    input.setAttribute("aria-activedescendant", `option-${active}`);
  }

  function choose(place) {
    chosen(found[place]);
    input.value = "";
    close();
    input.focus();
  }

  function show(total) {
    list.replaceChildren(...found.map((item, place) => option(item, place)));
    list.hidden = found.length === 0;
    input.setAttribute("aria-expanded", String(found.length > 0));
    input.removeAttribute("aria-activedescendant");
    active = -1;
    note.textContent = total === 0 ? "No item has these words in its title." : `${total} found`;
    note.classList.toggle("sr-only", total > 0);
  }

  function option(item, place) {
    return el(
      "li",
      {
        role: "option",
        id: `option-${place}`,
        "aria-selected": "false",
        mousedown: (event) => event.preventDefault(), // the focus stays in the box
        click: () => choose(place),
      },
      el("span", { class: "option-title" }, titleOf(item, columns())),
      tokens(item.semantic_id),
      el("span", { class: "option-about" }, aboutOf(item, columns())),
    );
  }

  async function search() {
    running?.abort();
    const query = input.value.trim();
    if (query === "") {
      note.textContent = "";
      close();
      return;
    }
    running = new AbortController();
    try {
      const { json } = await call(`v1/items?limit=${LIMIT}&q=${encodeURIComponent(query.slice(0, 256))}`, running);
      remember(json.items);
      found = json.items;
      show(json.total);
    } catch (error) {
      if (error.name !== "AbortError") failed(error);
    }
  }

  const soon = debounced(120, search);
  input.addEventListener("input", soon);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const open = !list.hidden && found.length > 0;
    if (event.key === "ArrowDown" && open) activate(active + 1);
    else if (event.key === "ArrowUp" && open) activate(active < 0 ? found.length - 1 : active - 1);
    else if (event.key === "Enter" && open) choose(Math.max(active, 0));
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
}
