/** The filter: rows of conditions for people, the same as JSON for everything the rows cannot say. */

import { everything } from "./catalog.js";
import { byId, debounced, el } from "./dom.js";
import { conditionsOf, operatorsOf, readValue, whereOf } from "./conditions.js";

const MAX_SUGGESTIONS = 60;
const UNSAYABLE = ["and", "or", "not", "__proto__"]; // columns that a row cannot name without meaning something else

/** Bind the section. `changed({where, includeIds})` is called with each filter that is whole. */
export function filters({ changed }) {
  const rows = byId("conditions");
  const raw = byId("filter-json");
  const note = byId("filter-note");
  let columns = {};
  let conditions = [];
  let includeIds = null;

  const current = () => ({ where: whereOf(conditions, columns), includeIds });

  function rowsChanged() {
    const filter = current();
    showJson(filter);
    changed(filter);
  }

  function showJson({ where, includeIds: only }) {
    const filter = { ...(only === null ? {} : { include_ids: only }), ...(where === null ? {} : { where }) };
    raw.value = Object.keys(filter).length ? JSON.stringify(filter, null, 2) : "";
    raw.removeAttribute("aria-invalid");
    const count = conditions.filter((one) => readValue(one, columns) !== undefined).length;
    byId("filter-count").textContent = where === null && only === null ? "" : String(Math.max(count, 1));
  }

  function draw() {
    rows.replaceChildren(...conditions.map(row));
    byId("add-condition").disabled = Object.keys(columns).length === 0;
  }

  function row(condition, place) {
    const pick = (label, choices, value, action) =>
      el(
        "select",
        { "aria-label": label, change: (event) => action(event.target.value) },
        ...choices.map((one) => el("option", { value: one, selected: one === value }, one.replace("_", " "))),
      );
    const column = pick(`Column of condition ${place + 1}`, Object.keys(columns), condition.column, (name) => {
      conditions[place] = { column: name, operator: operatorsOf(columns[name])[0], text: "" };
      draw();
      rowsChanged();
    });
    const operator = pick(`Operator of condition ${place + 1}`, operatorsOf(columns[condition.column]), condition.operator, (name) => {
      conditions[place] = { ...condition, operator: name };
      draw();
      rowsChanged();
    });
    const remove = () => {
      conditions.splice(place, 1);
      draw();
      rowsChanged();
      byId("add-condition").focus();
    };
    return el(
      "div",
      { class: "condition", role: "group", "aria-label": `Condition ${place + 1}` },
      column,
      operator,
      value(condition, place),
      el("button", { type: "button", class: "icon", "aria-label": `Remove condition ${place + 1}`, click: remove }, "×"),
    );
  }

  function value(condition, place) {
    const kind = columns[condition.column];
    const label = `Value of condition ${place + 1}`;
    const take = (text, input) => {
      conditions[place] = { ...conditions[place], text };
      const fits = text.trim() === "" || readValue(conditions[place], columns) !== undefined;
      input.setAttribute("aria-invalid", String(!fits));
      if (fits) later();
    };
    if (kind === "boolean" && condition.operator === "eq") {
      const input = el("select", { "aria-label": label, change: () => take(input.value, input) }, ...["", "true", "false"].map((one) => el("option", { value: one, selected: one === condition.text }, one || "…")));
      return input;
    }
    const several = ["in", "any_of", "none_of"].includes(condition.operator);
    const input = el("input", {
      type: "text",
      inputmode: kind === "integer" || kind === "number" ? "decimal" : "text",
      "aria-label": label,
      placeholder: several ? "one, or, more" : "value",
      value: condition.text,
      list: suggestions(condition.column, place),
      autocomplete: "off",
      input: () => take(input.value, input),
    });
    return input;
  }

  function suggestions(column, place) {
    const values = new Set(everything().flatMap((item) => item.metadata?.[column] ?? []));
    const list = byId(`suggestions-${place}`) ?? byId("suggestions").appendChild(el("datalist", { id: `suggestions-${place}` }));
    list.replaceChildren(...[...values].sort().slice(0, MAX_SUGGESTIONS).map((one) => el("option", { value: one })));
    return list.id;
  }

  const later = debounced(250, rowsChanged);
  byId("add-condition").addEventListener("click", () => {
    const names = Object.keys(columns);
    const column = names.find((name) => columns[name] !== "string") ?? names[0];
    conditions.push({ column, operator: operatorsOf(columns[column])[0], text: "" });
    draw();
    rows.lastElementChild.querySelector("select").focus();
  });
  raw.addEventListener("change", () => {
    const filter = parsedFilter(raw.value);
    raw.setAttribute("aria-invalid", String(filter === null));
    note.textContent = filter === null ? "This is not a JSON object with where or include_ids." : "";
    if (filter !== null) {
      take(filter);
      changed(filter);
    }
  });

  function take(filter) {
    includeIds = filter.includeIds;
    const read = conditionsOf(filter.where, columns);
    conditions = read ?? [];
    rows.hidden = byId("add-condition").hidden = read === null;
    note.textContent = read === null ? "The rows cannot show this filter; edit it as JSON." : "";
    draw();
    showJson({ where: filter.where, includeIds });
  }

  return {
    /** Take over the catalog's columns. */
    allow(info) {
      columns = Object.fromEntries(Object.entries(info.columns).filter(([name]) => !UNSAYABLE.includes(name)));
    },
    /** Draw a state, unless it is what the rows say already: a half-written one stays. */
    show(state) {
      const filter = { where: state.where, includeIds: state.includeIds };
      if (JSON.stringify(filter) !== JSON.stringify(current()) || rows.hidden) take(filter);
    },
  };
}

function parsedFilter(text) {
  if (text.trim() === "") return { where: null, includeIds: null };
  try {
    const { where = null, include_ids: includeIds = null, ...rest } = JSON.parse(text);
    const isWhere = where === null || (typeof where === "object" && !Array.isArray(where));
    const isList = includeIds === null || Array.isArray(includeIds);
    return isWhere && isList && Object.keys(rest).length === 0 ? { where, includeIds } : null;
  } catch {
    return null;
  }
}

