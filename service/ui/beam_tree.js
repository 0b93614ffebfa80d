/**
 * The beam tree: the search as it went, level by level.
 *
 * One SVG. A pill is a prefix that the beam kept, a ring one that was compared and lost, a cross one that leads to no
 * allowed item. It is one tab stop; the arrows go to the parent, the first child and the neighbours.
 */

import { DOT, keyOf, layOut } from "./beam_layout.js";
import { beamTable } from "./beam_table.js";
import { byId, signed, svg } from "./dom.js";
import { leafNames } from "./leaf_names.js";
import { massBar } from "./mass_bar.js";
import { shade } from "./semantic_id.js";

const PILL = 78;
const MIN_COLUMN = 190;
const KINDS = { kept: "kept by the beam", pruned: "pruned", closed: "closed: leads to no item that may be answered" };

/**
 * Bind the panel.
 * `titleOf(codes)` names an item of the answer or gives null, `rankOf(codes)` its rank; `opened(codes)` is called for a leaf that was activated,
 * `pointed(codes or null)` for a prefix under the pointer or the focus.
 */
export function beamTree({ titleOf, rankOf, opened, pointed, detail }) {
  const holder = byId("tree");
  let levels = null;
  let drawn = new Map();
  let width = 0;
  let names = leafNames();
  let served = "";
  const nameOf = (codes) => titleOf(codes) ?? names.nameOf(codes);

  function draw() {
    const room = Math.floor(holder.clientWidth);
    if (levels === null || room === 0) return;
    width = room;
    const last = Math.min(Math.max(room * 0.3, 230), 300);
    const size = Math.max(room, (levels.length - 1) * MIN_COLUMN + last + 64);
    const plan = layOut(levels, size, last);
    const figure = svg("svg", {
      role: "tree",
      "aria-label": `Beam tree of ${levels.length} levels`,
      width: size,
      height: plan.height,
      viewBox: `0 0 ${size} ${plan.height}`,
      keydown: (event) => travel(event, plan),
    });
    drawn = new Map();
    figure.append(
      ...levels.map((level, place) => massBar(level, plan.columns[place], Math.min(plan.step, last) - 20)),
      svg("g", { class: "edges", "aria-hidden": "true" }, ...plan.dots.filter((one) => one.first).map(thread), ...plan.nodes.map(edge)),
      svg("circle", { class: "root", cx: plan.root.x, cy: plan.root.y, r: 6 }),
      ...plan.dots.map((one) => mark(one, dot(one))),
      ...plan.nodes.map((one) => mark(one, pill(one, size))),
    );
    figure.querySelector("[role=treeitem]")?.setAttribute("tabindex", "0");
    const top = holder.scrollLeft;
    holder.replaceChildren(figure);
    holder.scrollLeft = top;
  }

  function edge(node) {
    const weight = (1 + 9 * Math.sqrt(Math.exp(node.logProb))).toFixed(2);
    const line = svg("path", { class: `edge${ended(node)}`, d: curve(node.parent, node), "stroke-width": weight, vars: shade(node.level, node.codes.at(-1)) });
    drawn.set(`edge ${node.key}`, line);
    return line;
  }

  const thread = (one) => svg("path", { class: `edge ${one.kind}`, d: curve(one.parent, one), "stroke-width": 1 });

  function mark(one, shape) {
    const key = keyOf(one.codes);
    const node = svg(
      "g",
      {
        class: `node ${one.kind}${one.leaf ? " leaf" : ended(one)}`,
        role: "treeitem",
        tabindex: "-1",
        "aria-level": one.level + 1,
        "aria-label": label(one),
        "data-key": key,
        transform: `translate(${one.x.toFixed(1)} ${one.y.toFixed(1)})`,
        vars: shade(one.level, one.codes.at(-1)),
        mouseenter: () => point(one),
        mouseleave: () => point(null),
        focus: () => point(one),
        click: () => activate(one),
      },
      ...shape,
    );
    drawn.set(key, node);
    return node;
  }

  function pill(node, size) {
    const title = node.leaf ? nameOf(node.codes) : null;
    const rank = node.leaf ? rankOf(node.codes) : null;
    const room = Math.floor((size - node.x - PILL - 34) / 6.6);
    return [
      svg("rect", { class: "pill", x: 0, y: -10, width: PILL, height: 20, rx: 6 }),
      svg("rect", { class: "pill-code", x: 0, y: -10, width: 34, height: 20, rx: 6 }),
      svg("text", { class: "code", x: 17, y: 4, "text-anchor": "middle" }, String(node.codes.at(-1))),
      svg("text", { class: "log-prob", x: 72, y: 4, "text-anchor": "end" }, signed(node.logProb)),
      rank === null ? null : svg("text", { class: "leaf-rank", x: PILL + 22, y: 4, "text-anchor": "end" }, String(rank)),
      title === null ? null : svg("text", { class: rank === null ? "leaf-title beyond" : "leaf-title", x: PILL + 29, y: 4 }, shortened(title, room)),
    ];
  }

  function dot(one) {
    const reach = svg("rect", { class: "reach", x: -DOT / 2, y: -DOT / 2, width: DOT, height: DOT });
    if (one.kind === "pruned") return [reach, svg("circle", { class: "ring", r: 3.5 })];
    return [reach, svg("path", { class: "cross", d: "M-3 -3L3 3M-3 3L3 -3" })];
  }

  function label(one) {
    const title = one.leaf ? nameOf(one.codes) : null;
    const below = one.leaf || one.items === null ? "" : `, ${one.items} items below`;
    return `${title ? `${title}, ` : ""}prefix ${one.codes.join(" ")}, ${KINDS[one.kind]}, log-probability ${one.logProb.toFixed(2)}${below}`;
  }

  function point(one) {
    light(one === null ? null : one.codes);
    detail(one);
    pointed(one === null || !one.leaf ? null : one.codes);
  }

  function light(codes) {
    holder.classList.toggle("lit", codes !== null && drawn.has(keyOf(codes)));
    for (const node of holder.querySelectorAll(".on")) node.classList.remove("on");
    for (let depth = 1; depth <= (codes?.length ?? 0); depth += 1) {
      const key = keyOf(codes.slice(0, depth));
      drawn.get(key)?.classList.add("on");
      drawn.get(`edge ${key}`)?.classList.add("on");
    }
  }

  function activate(one) {
    if (one.leaf && rankOf(one.codes) !== null) opened(one.codes);
  }

  function travel(event, plan) {
    const here = event.target.closest("[role=treeitem]");
    if (!here) return;
    const all = [...plan.nodes, ...plan.dots];
    const one = all.find((node) => keyOf(node.codes) === here.dataset.key);
    const column = all.filter((node) => node.level === one.level).sort((a, b) => a.y - b.y || a.x - b.x);
    const place = column.indexOf(one);
    const child = all.find((node) => node.parent === one);
    const targets = { ArrowUp: column[place - 1], ArrowDown: column[place + 1], ArrowLeft: one.parent, ArrowRight: child, Home: column[0], End: column.at(-1) };
    if (event.key === "Enter" || event.key === " ") activate(one);
    else if (!(event.key in targets)) return;
    event.preventDefault();
    const target = drawn.get(keyOf(targets[event.key]?.codes ?? []));
    if (!target) return;
    here.setAttribute("tabindex", "-1");
    target.setAttribute("tabindex", "0");
    target.focus();
  }

  /** The other leaves get their names when they come; nobody waits for them, and the focus stays where it is. */
  async function nameLeaves(of) {
    const leaves = of.at(-1).kept.map((one) => one.semantic_id).filter((codes) => nameOf(codes) === null);
    if ((await names.fetch(leaves)) && levels === of && !holder.contains(document.activeElement)) draw();
  }

  new ResizeObserver(() => Math.abs(holder.clientWidth - width) > 1 && draw()).observe(holder);

  return {
    /** Draw what a search in a bundle of this version did; null where none was made, undefined where nobody asked. */
    show(explain, version) {
      if (version !== served) names = leafNames();
      served = version;
      levels = explain?.levels ?? null;
      byId("tree-figure").hidden = levels === null;
      byId("tree-none").hidden = explain !== null;
      holder.replaceChildren();
      byId("tree-table").replaceChildren(...(levels === null ? [] : [beamTable(levels)]));
      draw();
      detail(null);
      if (levels !== null) nameLeaves(levels);
    },
    /** Show the way to a semantic ID, null for none. */
    light,
  };
}

function curve(from, to) {
  const x = from.level < 0 ? from.x + 6 : from.x + PILL;
  const end = to.kind === "kept" ? to.x : to.x - 6;
  const bend = x + (end - x) * 0.55;
  return `M${x} ${from.y.toFixed(1)}C${bend} ${from.y.toFixed(1)} ${bend} ${to.y.toFixed(1)} ${end} ${to.y.toFixed(1)}`;
}

/** Kept, and then none of its children was. */
const ended = (node) => (node.kind === "kept" && !node.leaf && !node.children.length ? " ended" : "");

const shortened = (text, room) => (text.length > room ? `${text.slice(0, Math.max(room - 1, 4)).trimEnd()}…` : text);

