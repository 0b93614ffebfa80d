/** The tabs pattern of the ARIA guide: arrows move and open, only the open tab is a tab stop. */

import { byId } from "./dom.js";

/** Bind the tabs named `tab-NAME` with their panels `panel-NAME`; `opened(name)` is called when a person opens one. */
export function tabs(names, { opened }) {
  function show(name) {
    for (const one of names) {
      const open = one === name;
      byId(`tab-${one}`).setAttribute("aria-selected", String(open));
      byId(`tab-${one}`).tabIndex = open ? 0 : -1;
      byId(`panel-${one}`).hidden = !open;
    }
  }

  function open(name) {
    show(name);
    byId(`tab-${name}`).focus();
    opened(name);
  }

  names.forEach((name, place) => {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => open(name));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: names.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      open(names[(to + names.length) % names.length]);
    });
  });
  return { show };
}
