/**
 * Between rows of conditions and the `where` of a request.
 *
 * A row is {column, operator, text}. Pure: no element, no call. Which operator fits which type is the service's rule.
 */

const FITTING = {
  string: ["any_of", "none_of", "eq", "gte", "lte"],
  integer: ["gte", "lte", "eq", "in", "none_of"],
  number: ["gte", "lte", "eq", "in", "none_of"],
  boolean: ["eq"],
  "list of strings": ["any_of", "none_of"],
};
const SEVERAL = new Set(["in", "any_of", "none_of"]);

/** The operators of a type of column, the likeliest first. */
export const operatorsOf = (kind) => FITTING[kind] ?? [];

/** The value that a row means; undefined while it is not whole. */
export function readValue({ column, operator, text }, columns) {
  const one = (part) => scalar(part.trim(), columns[column]);
  if (!SEVERAL.has(operator)) return one(text);
  const values = text.split(",").map((part) => part.trim()).filter(Boolean).map(one);
  return values.length === 0 || values.includes(undefined) ? undefined : values;
}

/** How a value is written in a row; null if a row cannot hold it. */
export function shownValue(value) {
  if (!Array.isArray(value)) return typeof value === "object" ? null : String(value);
  const clash = value.some((part) => typeof part === "object" || String(part).includes(","));
  return clash ? null : value.join(", ");
}

/** Rows -> `where`, null for no whole condition. All have to hold. */
export function whereOf(conditions, columns) {
  const where = {};
  const again = [];
  for (const condition of conditions) {
    const value = readValue(condition, columns);
    if (value === undefined) continue;
    const { column, operator } = condition;
    if (where[column]?.[operator] !== undefined) again.push({ [column]: { [operator]: value } });
    else where[column] = { ...where[column], [operator]: value };
  }
  if (again.length) where.and = again;
  return Object.keys(where).length ? where : null;
}

/** `where` -> rows, null for one that rows cannot say: combinators, foreign columns, odd values. */
export function conditionsOf(where, columns) {
  const { and = [], ...first } = where ?? {};
  if (!Array.isArray(and)) return null;
  const conditions = [];
  for (const part of [first, ...and]) {
    for (const [column, operators] of Object.entries(part ?? {})) {
      if (!Object.hasOwn(columns, column) || operators === null || typeof operators !== "object") return null;
      for (const [operator, value] of Object.entries(operators)) {
        const text = shownValue(value);
        const condition = { column, operator, text };
        if (text === null || !operatorsOf(columns[column]).includes(operator)) return null;
        if (JSON.stringify(readValue(condition, columns)) !== JSON.stringify(value)) return null;
        conditions.push(condition);
      }
    }
  }
  return conditions;
}

function scalar(text, kind) {
  if (text === "") return undefined;
  if (kind === "integer") return /^-?\d{1,15}$/.test(text) ? Number(text) : undefined;
  if (kind === "number") return Number.isFinite(Number(text)) ? Number(text) : undefined;
  if (kind === "boolean") return text === "true" || (text === "false" ? false : undefined);
  return text;
}
