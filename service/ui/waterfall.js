/** Where the time of an answer went, as bars on one time line. */

import { el, svg } from "./dom.js";

const LABEL = 168;
const VALUE = 84;
const ROW = 34;

/** The stages of an answer in order: what the service says of itself, and what this page saw around it. */
export function stagesOf(timing, seen) {
  const whole = seen.ended - seen.began;
  const rest = Math.max(timing.total - timing.queue - timing.encode - timing.decode, 0);
  const outside = Math.max(whole - timing.total, 0);
  const before = seen.sent === undefined ? outside / 2 : Math.min(Math.max(seen.sent - seen.began, 0), outside);
  const after = seen.answered === undefined ? outside - before : Math.min(Math.max(seen.ended - seen.answered, 0), outside - before);
  let start = 0;
  return [
    ["Browser, before sending", "network", before],
    ["Queue", "queue", timing.queue],
    ["Encode the history", "encode", timing.encode],
    ["Decode, level by level", "decode", timing.decode],
    ["Rest of the service", "rest", rest],
    ["Network", "network", outside - before - after],
    ["Browser, receiving", "network", after],
  ].map(([name, kind, ms]) => {
    const stage = { name, kind, start, ms };
    start += ms;
    return stage;
  });
}

/** The figure of an answer. */
export function waterfall(timing, seen, width) {
  const stages = stagesOf(timing, seen);
  const whole = stages.reduce((sum, stage) => sum + stage.ms, 0) || 1;
  const scale = Math.max(width - LABEL - VALUE, 60) / whole;
  const rows = stages.map((stage, place) =>
    svg(
      "g",
      { class: "stage", role: "listitem", "aria-label": `${stage.name}: ${stage.ms.toFixed(2)} milliseconds`, transform: `translate(0 ${place * ROW})` },
      svg("text", { class: "stage-name", x: 0, y: 21 }, stage.name),
      svg("rect", { class: "stage-track", x: LABEL, y: 9, width: whole * scale, height: 16, rx: 4 }),
      svg("rect", { class: `stage-bar ${stage.kind}`, x: LABEL + stage.start * scale, y: 9, width: Math.max(stage.ms * scale, 1.5), height: 16, rx: 3 }),
      svg("text", { class: "stage-value", x: width, y: 21, "text-anchor": "end" }, `${stage.ms.toFixed(2)} ms`),
    ),
  );
  const height = stages.length * ROW;
  return el(
    "div",
    { class: "waterfall" },
    svg("svg", { role: "list", "aria-label": "Time of the answer by stage", width, height, viewBox: `0 0 ${width} ${height}` }, ...rows),
    el("p", { class: "muted" }, `${whole.toFixed(1)} ms in this page, ${timing.total.toFixed(1)} ms of them in the service.`),
  );
}
