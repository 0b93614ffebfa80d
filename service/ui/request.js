/** The request that a state of the page means. */

/** The body of POST /v1/recommend; only what differs from the service's own defaults. The tree needs `explain`. */
export function requestOf(state) {
  const body = { history: state.history, k: state.k };
  if (state.beams !== null) body.num_beams = state.beams;
  if (state.excludeHistory !== null) body.exclude_history = state.excludeHistory;
  if (state.proveExact) body.prove_exact = true;
  const filter = {};
  if (state.includeIds !== null) filter.include_ids = state.includeIds;
  if (state.where !== null) filter.where = state.where;
  if (Object.keys(filter).length) body.filter = filter;
  if (state.tab === "tree") body.explain = true;
  return body;
}

/** The same for a program, which has no use for the tree. */
export function withoutTree(body) {
  const { explain: _, ...rest } = body;
  return rest;
}
