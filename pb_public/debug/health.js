/** The parts' health, asked every few seconds while the page is looked at. */

import { element } from "./elements.js";
import { hasText, text } from "./texts.js";

const EVERY_MS = 10_000;
const TIMEOUT_MS = 8_000;
const PARTS = ["pocketbase", "runner", "opencode", "queue"];

let report = null; // the last answer; null: none yet
let reachable = true;
let timer = 0;

/** Begin to ask, and go on. */
export function watchHealth() {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) askHealth();
  });
  window.addEventListener("online", askHealth);
  return askHealth();
}

/** Ask now; the next question is counted from here. */
export async function askHealth() {
  clearTimeout(timer);
  timer = setTimeout(() => !document.hidden && askHealth(), EVERY_MS);
  try {
    const response = await fetch("/opencode/health", {
      headers: { Accept: "application/json" },
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    report = await response.json(); // a 503 has a report too
    reachable = true;
  } catch {
    reachable = false;
  }
  showHealth();
}

/** Show what is known, in the language in use. */
export function showHealth() {
  const overall = element("health-overall");
  const state = reachable ? stateOf(report) : "unreachable";
  overall.dataset.state = state;
  overall.textContent = text(`health.${state}`);
  element("health").replaceChildren(...PARTS.map(row));
}

function row(part) {
  const known = reachable && report ? report[part] : null;
  const state = part === "queue" ? queueState(known) : stateOf(known);
  const item = document.createElement("li");
  item.dataset.part = part;
  item.dataset.state = state;
  item.append(
    span("part-name", text(`part.${part}`)),
    span("part-detail", detailOf(part, known)),
    span("part-state", part === "queue" && state === "degraded" ? text("queueFull") : text(`health.${state}`)),
  );
  return item;
}

function span(className, content) {
  const el = document.createElement("span");
  el.className = className;
  el.textContent = content;
  return el;
}

function stateOf(known) {
  const status = known?.status;
  return typeof status === "string" && hasText(`health.${status}`) ? status : "unknown";
}

function queueState(queue) {
  if (!queue) return "unknown";
  if (typeof queue.status === "string") return stateOf(queue);
  if (typeof queue.waiting !== "number") return "unknown";
  return queue.running >= queue.slots && queue.waiting >= queue.size ? "degraded" : "ok";
}

function detailOf(part, known) {
  if (!known) return "";
  if (part === "queue") return typeof known.slots === "number" ? text("queueNumbers", known) : "";
  const details = [known.version, known.reason].filter((word) => typeof word === "string");
  return details.join(" · ");
}
