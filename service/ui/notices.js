/**
 * What stands in the place of an answer while there is none, and how the page comes back by itself.
 *
 * A busy service (429) is asked again when it said so; one that is not ready (503) or gone is asked for `/ready` until
 * it is. Everything else waits for the person.
 */

import { Problem, Unreachable, call } from "./api.js";
import { byId, el } from "./dom.js";

const POLL_MS = 1500;
const FIELDS = [
  [/^\/history/, "history-box"],
  [/^\/k$/, "k"],
  [/^\/num_beams/, "beams"],
  [/^\/prove_exact/, "prove-exact"],
  [/^\/exclude_history/, "exclude-history"],
  [/^\/filter/, "filter-json"],
];

/** Bind the place. `again()` is called when it is time to ask once more. */
export function notices({ again }) {
  const place = byId("notice");
  let timer = 0;

  function clear() {
    clearInterval(timer);
    place.hidden = true;
    place.replaceChildren();
    for (const field of document.querySelectorAll(".refused")) {
      field.classList.remove("refused");
      field.removeAttribute("aria-invalid");
    }
  }

  function put(kind, title, ...content) {
    clear();
    place.className = `card notice ${kind}`;
    place.replaceChildren(el("h3", {}, title), ...content);
    place.hidden = false;
  }

  const retry = (label) => el("button", { type: "button", click: again }, label);

  function busy(error) {
    const left = el("span", { class: "countdown", "aria-hidden": "true" });
    let seconds = error.retryAfterS;
    const tick = () => {
      left.textContent = `Asking again in ${seconds} s`;
      if (seconds <= 0) {
        clearInterval(timer);
        again();
      }
      seconds -= 1;
    };
    put("busy", "The service is busy", el("p", {}, error.message, " The page asks again by itself."), el("p", { class: "row" }, left, retry("Ask now")));
    tick();
    timer = setInterval(tick, 1000);
  }

  function away(kind, title, text) {
    put(kind, title, el("p", {}, text), el("p", { class: "row" }, el("span", { class: "pulse", "aria-hidden": "true" }), el("span", {}, "Watching; it goes on by itself."), retry("Ask now")));
    timer = setInterval(async () => {
      try {
        await call("ready");
        clearInterval(timer);
        again();
      } catch {
        // still away
      }
    }, POLL_MS);
  }

  function refused(error) {
    put("refused-request", "The request was refused", el("p", {}, error.message), error.pointer === null ? "" : el("p", { class: "muted" }, "At ", el("code", {}, error.pointer)));
    const field = FIELDS.find(([pattern]) => pattern.test(error.pointer ?? ""))?.[1];
    if (!field) return;
    const target = byId(field);
    target.classList.add("refused");
    target.setAttribute("aria-invalid", "true");
    const fold = target.closest("details");
    if (fold) fold.open = true;
  }

  return {
    clear,
    /** Nothing is wrong, nothing has been asked. */
    empty(content) {
      put("empty", "What would come next?", ...content);
    },
    /** Say what went wrong. */
    show(error) {
      if (error instanceof Unreachable) away("gone", "The service cannot be reached", "The connection failed. Is it running, and is the network there?");
      else if (!(error instanceof Problem)) throw error;
      else if (error.status === 429) busy(error);
      else if (error.status === 503) away("not-ready", "The service is not ready", error.message);
      else if (error.status === 401) put("locked", "A key is needed", el("p", {}, "This service answers only with an API key."), el("p", {}, retry("Give a key")));
      else if (error.status === 422 || error.status === 413) refused(error);
      else {
        const id = error.requestId ? el("p", { class: "muted" }, "Request ", el("code", {}, error.requestId)) : null;
        put("failed", `The service answered ${error.status}`, el("p", {}, error.message), id ?? "", el("p", {}, retry("Ask again")));
      }
    },
  };
}
