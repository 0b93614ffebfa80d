/**
 * Where the nodes of a beam tree go. Pure: numbers in, numbers out.
 *
 * A level is a column. A kept prefix is a node; its pruned and closed children are dots in one row below its kept ones.
 * A prefix that has no kept child ends its branch and takes a row of its own. Lengths are in SVG user units.
 */

export const ROW = 26;
export const SHORT_ROW = 23;
export const DOT = 11;
const HEAD = 76;
const ROOT_X = 20;
const FIRST_X = 64;
const MAX_STEP = 380;

/** The key of a prefix: its codes. */
export const keyOf = (codes) => codes.join(",");

/**
 * Lay out `explain.levels` on `width` units, with `last` of them at least kept for the leaves and their titles.
 *
 * Returns {nodes, dots, height, columns, root}. A node has {key, codes, level, logProb, items, parent, x, y, leaf,
 * children}, a dot {kind, codes, level, logProb, items, parent, first, x, y}.
 */
export function layOut(levels, width, last) {
  const step = Math.min((width - last - FIRST_X) / Math.max(levels.length - 1, 1), MAX_STEP);
  const columns = levels.map((_, level) => FIRST_X + level * step);
  const root = { key: "", codes: [], level: -1, logProb: 0, items: null, parent: null, x: ROOT_X, y: 0, leaf: false, children: [] };
  const nodes = adopt(levels, root);
  const dots = [];
  let bottom = HEAD;

  function place(node) {
    node.x = node.level < 0 ? ROOT_X : columns[node.level];
    node.children.forEach(place);
    const ghosts = ghostsOf(levels[node.level + 1], node);
    const top = bottom;
    if (node.children.length) node.y = (node.children[0].y + node.children.at(-1).y) / 2;
    if (!node.children.length || ghosts.length) bottom += node.leaf ? ROW : SHORT_ROW;
    const middle = (top + bottom) / 2;
    if (!node.children.length) node.y = middle;
    const room = Math.max(Math.floor((step - 12) / DOT), 1);
    ghosts.slice(0, room).forEach((ghost, place) => dots.push({ ...ghost, parent: node, first: place === 0, x: columns[ghost.level] + 6 + place * DOT, y: middle }));
  }

  place(root);
  return { nodes, dots, root, columns, step, height: bottom + 12 };
}

function adopt(levels, root) {
  const byKey = new Map([["", root]]);
  const nodes = [];
  levels.forEach(({ kept }, level) => {
    for (const one of kept) {
      const parent = byKey.get(keyOf(one.semantic_id.slice(0, -1)));
      if (!parent) continue;
      const key = keyOf(one.semantic_id);
      const leaf = level === levels.length - 1;
      const node = { key, codes: one.semantic_id, level, logProb: one.log_prob, items: one.items, parent, leaf, children: [], kind: "kept", x: 0, y: 0 };
      parent.children.push(node);
      byKey.set(key, node);
      nodes.push(node);
    }
  });
  return nodes;
}

function ghostsOf(level, parent) {
  if (!level) return [];
  const below = (kind) =>
    level[kind]
      .filter((one) => keyOf(one.semantic_id.slice(0, -1)) === parent.key)
      .map((one) => ({ kind, codes: one.semantic_id, level: parent.level + 1, logProb: one.log_prob, items: one.items }));
  return [...below("pruned"), ...below("closed")];
}
