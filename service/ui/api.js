/** Talking to the service: one call, its problems, its key and its clock. Knows nothing of the page. */

const ROOT = new URL("../", document.baseURI); // below whatever prefix a proxy put before it
const KEY = "genrec.key";
const MAX_WAIT_S = 120;

/** What the service refused, as its problem document says it. */
export class Problem extends Error {
  constructor(status, told, retryAfterS) {
    super(typeof told.detail === "string" ? told.detail : `The service answered ${status}.`);
    this.status = status;
    this.code = told.code ?? "";
    this.pointer = told.pointer ?? null;
    this.requestId = told.request_id ?? "";
    this.retryAfterS = retryAfterS;
  }
}

/** No answer at all: the service, or the way to it, is gone. */
export class Unreachable extends Error {}

let unlock = null;

/** Who is asked for a key when the service wants one: an async function that resolves to the key, or null to give up. */
export function onLocked(ask) {
  unlock = ask;
}

/** The absolute address of a path of the service. */
export const address = (path) => new URL(path, ROOT).href;

/**
 * Ask the service. Resolves to {json, text, timing}; `timing` is in milliseconds of this page's clock.
 * Rejects with Problem, Unreachable, or the AbortError of `signal`.
 */
export async function call(path, { body, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY); // of this tab only, and never in a link
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const began = performance.now();
    const { response, text } = await exchange(address(path), {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "same-origin",
    });
    if (response.ok) return { json: parsed(response, text), text, timing: clocked(response.url, began) };
    if (response.status === 401 && unlock !== null) {
      const given = await unlock(key !== null);
      if (given !== null) {
        sessionStorage.setItem(KEY, given);
        continue;
      }
    }
    throw new Problem(response.status, parsed(response, text) ?? {}, retryAfter(response));
  }
}

async function exchange(url, options) {
  try {
    const response = await fetch(url, options);
    return { response, text: await response.text() };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The service cannot be reached.");
  }
}

function parsed(response, text) {
  if (!/\bjson\b/.test(response.headers.get("content-type") ?? "")) return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function retryAfter(response) {
  const seconds = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), MAX_WAIT_S) : 1;
}

function clocked(url, began) {
  const ended = performance.now();
  const entry = performance.getEntriesByName(url, "resource").at(-1);
  performance.clearResourceTimings();
  if (!entry || entry.startTime < began - 5 || !entry.responseStart) return { began, ended };
  return { began, sent: entry.requestStart, answered: entry.responseStart, ended: entry.responseEnd };
}
