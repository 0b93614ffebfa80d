/** Making elements. Text goes in as text nodes only: a title that is markup stays letters. */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. `attributes`: strings and numbers as attributes, functions as listeners, `vars` as CSS variables. */
export function el(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** Wait until `quiet` milliseconds have passed without another call. */
export function debounced(quiet, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(action, quiet, ...values);
  };
}

/** A number as people write it, with a real minus sign. */
export const signed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

/** A share of one in per cent, with as many digits as tell something. */
export function percent(share) {
  const value = share * 100;
  if (value === 0 || value >= 99.95) return `${value.toFixed(0)} %`;
  return value < 0.1 ? "< 0.1 %" : `${value.toFixed(1)} %`;
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "vars") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
