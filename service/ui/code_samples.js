/** A request as code to copy. */

/** For a shell. */
export function asCurl(url, body) {
  const quoted = JSON.stringify(body).replaceAll("'", `'\\''`);
  return `curl -s ${url} \\\n  -H 'content-type: application/json' \\\n  -d '${quoted}'`;
}

/** For Python, with the client that comes with the service. */
export function asPython(root, body) {
  const fields = Object.entries(body).map(([name, value]) => `        ${name}=${literal(value)},`);
  return [
    "from service.client import Client",
    "",
    `with Client(${JSON.stringify(root)}) as client:`,
    "    answer = client.recommend(",
    ...fields,
    "    )",
    "for item in answer.items:",
    "    print(item.rank, item.item_id, item.score, item.metadata)",
  ].join("\n");
}

/** A JSON value as a Python literal. */
export function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([key, one]) => `${literal(key)}: ${literal(one)}`).join(", ")}}`;
  }
  return JSON.stringify(value); // JSON's escapes are Python's, too
}
