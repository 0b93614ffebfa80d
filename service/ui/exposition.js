/** Reading Prometheus' text format: as much of it as the status page shows. Pure. */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Text -> [{name, labels, value}]. Lines it cannot read are left out. */
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (found === null) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, key, value]) => [key, value]));
    samples.push({ name: found[1], labels, value: found[3] === "+Inf" ? Infinity : Number(found[3]) });
  }
  return samples;
}

/** The sum of the samples of this name whose labels fulfil `wanted`; null if there is none. */
export function total(samples, name, wanted = () => true) {
  const found = samples.filter((one) => one.name === name && wanted(one.labels));
  return found.length ? found.reduce((sum, one) => sum + one.value, 0) : null;
}

/**
 * A quantile of what a histogram counted between two readings, linear within its bucket as Prometheus does it.
 * null if nothing was counted.
 */
export function quantile(q, before, after, name, wanted = () => true) {
  const counts = new Map();
  for (const [samples, sign] of [[before, -1], [after, 1]]) {
    for (const { labels, value } of samples.filter((one) => one.name === `${name}_bucket` && wanted(one.labels))) {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + sign * value);
    }
  }
  const buckets = [...counts].sort((a, b) => a[0] - b[0]);
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  const rank = q * all;
  let low = 0;
  let below = 0;
  for (const [bound, count] of buckets) {
    if (count >= rank) return bound === Infinity ? low : low + ((bound - low) * (rank - below)) / Math.max(count - below, 1e-9);
    low = bound;
    below = count;
  }
  return low;
}
