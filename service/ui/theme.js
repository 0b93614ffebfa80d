/** Light, dark, or as the system has it. A classic script in the head, so that the first paint is right. */
(() => {
  const KEY = "genrec.theme";
  const NEXT = { auto: "light", light: "dark", dark: "auto" };
  const root = document.documentElement;
  const stored = () => (Object.hasOwn(NEXT, localStorage.getItem(KEY) ?? "") ? localStorage.getItem(KEY) : "auto");

  function apply(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-label", `Colours: ${theme}. Change to ${NEXT[theme]}.`);
  }

  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    apply(stored());
    document.getElementById("theme").addEventListener("click", () => {
      localStorage.setItem(KEY, NEXT[stored()]);
      apply(stored());
    });
  });
})();
