/** Asks for an API key when the service wants one. It goes to this tab's sessionStorage and nowhere else. */

import { el } from "./dom.js";

let open = null;

/** Ask once, however many calls wait for it. `refused`: a key was sent and was not right. Resolves to null on cancel. */
export function askForKey(refused) {
  open ??= ask(refused).finally(() => (open = null));
  return open;
}

function ask(refused) {
  return new Promise((resolve) => {
    const input = el("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false" });
    const finish = (value) => {
      dialog.close();
      dialog.remove();
      resolve(value);
    };
    const give = () => finish(input.value.trim() || null);
    input.addEventListener("keydown", (event) => event.key === "Enter" && give());
    const dialog = el(
      "dialog",
      { class: "card key-dialog", "aria-labelledby": "key-title", cancel: () => finish(null) },
      el("h2", { id: "key-title" }, "This service asks for a key"),
      el("p", { class: "muted" }, refused ? "That key was refused. Try another one." : "It stays in this tab and is gone when you close it."),
      el("label", { for: "key" }, "API key"),
      input,
      el(
        "div",
        { class: "row end" },
        el("button", { type: "button", class: "quiet", click: () => finish(null) }, "Not now"),
        el("button", { type: "button", class: "primary", click: give }, "Use it"),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}
