/** How many, how wide, and the two switches. */

import { byId } from "./dom.js";

/** Bind the controls. `changed(part)` is called with the part of the state that a person changed. */
export function options({ changed }) {
  const k = byId("k");
  const beams = byId("beams");
  const exclude = byId("exclude-history");
  const prove = byId("prove-exact");
  let limits = { max_k: 10_000, max_proof_beams: 1 };

  const whole = (input) => (/^[0-9]{1,5}$/.test(input.value.trim()) ? Number(input.value) : null);
  k.addEventListener("change", () => {
    const value = Math.min(Math.max(whole(k) ?? 10, 1), limits.max_k);
    k.value = value;
    changed({ k: value });
  });
  beams.addEventListener("change", () => {
    const value = whole(beams);
    beams.value = value ?? "";
    changed({ beams: value === 0 ? null : value });
  });
  exclude.addEventListener("change", () => changed({ excludeHistory: exclude.checked }));
  prove.addEventListener("change", () => changed({ proveExact: prove.checked }));

  return {
    /** Take over what the bundle allows. */
    allow(info) {
      limits = info.limits;
      k.max = limits.max_k;
      beams.placeholder = `auto (${info.num_beams})`;
      prove.disabled = limits.max_proof_beams === 0;
      byId("k-hint").textContent = `up to ${limits.max_k}`;
    },
    /** Draw a state. */
    show(state, info) {
      k.value = state.k;
      beams.value = state.beams ?? "";
      exclude.checked = state.excludeHistory ?? info?.exclude_history ?? true;
      prove.checked = state.proveExact;
    },
  };
}
