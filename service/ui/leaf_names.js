/** Names of leaves that the beam kept and the answer does not hold: from the tree of the catalog, parent by parent. */

import { call } from "./api.js";
import { keyOf } from "./beam_layout.js";

const AT_ONCE = 4;
const MAX_PARENTS = 40;
const MAX_CHILDREN = 1000;

/** The names asked for so far, for one bundle; `nameOf(codes)` is null for what is not known. */
export function leafNames() {
  const names = new Map();
  const asked = new Set();

  async function below(parent) {
    try {
      const { json } = await call(`v1/tree?limit=${MAX_CHILDREN}&prefix=${parent}`);
      for (const { semantic_id, examples } of json.children) {
        if (examples.length) names.set(keyOf(semantic_id), examples[0].title ?? examples[0].item_id);
      }
    } catch {
      asked.delete(parent); // the tree does without a name, and asks again with the next answer
    }
  }

  return {
    nameOf: (codes) => names.get(keyOf(codes)) ?? null,
    /** Ask for the names of these leaves; resolves to whether there are new ones. */
    async fetch(leaves) {
      const parents = [...new Set(leaves.map((codes) => keyOf(codes.slice(0, -1))))].filter((one) => !asked.has(one)).slice(0, MAX_PARENTS);
      const waiting = [...parents];
      parents.forEach((one) => asked.add(one));
      const next = async () => {
        for (let parent = waiting.shift(); parent !== undefined; parent = waiting.shift()) await below(parent);
      };
      await Promise.all(Array.from({ length: AT_ONCE }, next));
      return parents.length > 0;
    },
  };
}
