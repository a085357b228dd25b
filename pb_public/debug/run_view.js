/**
 * One run on the page: what its events say, as they come.
 *
 * Everything a model, a tool or the server says is untrusted. It goes into the page as text
 * (`textContent`, text nodes) and nothing else; the page's policy forbids every other way.
 */

import { element } from "./elements.js";
import { text } from "./texts.js";
import { ToolList } from "./tool_list.js";

const RAW_LINES = 400; // of the event log; older ones go
const SEGMENT_LENGTH = 20_000; // of one text node: appending to a huge one copies it each time

/** The states after which nothing follows. */
const ENDED = new Set(["finished", "failed", "cancelled", "stopped", "lost"]);

export class RunView {
  #state = "idle";
  #stateParams = {};
  #facts = new Map();
  #rawLines = [];
  #eventCount = 0;
  #byteCount = 0;
  #startedAt = 0;
  #endedAt = 0;
  #lastSignAt = 0;
  #waiting = null;
  #isCut = false;
  #segment = null;
  #tools = new ToolList(element("tools"));

  /** What the stream said went wrong: `{message, code}`, or null. */
  failure = null;

  /** What to do with a person's answer to what OpenCode asks. */
  onAnswer = (_permissionId, _option) => {};

  /** Whether a run is on. */
  get active() {
    return this.#state !== "idle" && !this.ended;
  }

  /** Whether the last run has come to its end. */
  get ended() {
    return ENDED.has(this.#state);
  }

  /** Clear the page and start the clock of a new run. */
  begin() {
    this.clear();
    this.#startedAt = performance.now();
    this.#lastSignAt = this.#startedAt;
    element("answer").setAttribute("aria-busy", "true");
    this.#setState("connecting");
  }

  /** Forget the last run. */
  clear() {
    this.#facts.clear();
    this.#rawLines = [];
    this.#eventCount = 0;
    this.#byteCount = 0;
    this.#startedAt = 0;
    this.#endedAt = 0;
    this.#waiting = null;
    this.#isCut = false;
    this.#segment = null;
    this.failure = null;
    this.#tools.clear();
    for (const id of ["answer", "thoughts-text", "plan-entries", "raw-text"]) {
      element(id).replaceChildren();
    }
    for (const id of ["thoughts", "plan", "activity"]) element(id).hidden = true;
    this.#setState("idle");
  }

  /** The gateway took the run on. */
  accepted({ runId, requestId }) {
    if (runId) this.#facts.set("factRun", runId);
    if (requestId) this.#facts.set("factRequest", requestId);
    this.#setState("accepted");
  }

  /** Show what one chunk of the stream brought. */
  take({ bytes, events }) {
    this.#byteCount += bytes;
    this.#isCut = false;
    this.#lastSignAt = performance.now();
    const answer = element("answer");
    const follow = answer.scrollHeight - answer.scrollTop - answer.clientHeight < 40;
    for (const event of events) this.#apply(event);
    this.#eventCount += events.length;
    this.#log(events);
    if (follow) answer.scrollTop = answer.scrollHeight;
    this.refresh();
  }

  /** The connection broke, and is being mended. */
  cut() {
    this.#isCut = true;
    this.refresh();
  }

  /** End the run from this side: *state* is `stopped`, `lost` or `failed`. */
  end(state) {
    if (!this.ended) this.#setState(state);
  }

  /** Show again what depends on the time or the language. */
  refresh() {
    const status = element("status");
    status.dataset.state = this.#state;
    setText(status, text(`state.${this.#state}`, this.#stateParams));
    const waiting = element("waiting");
    const notice = this.active ? this.#notice() : "";
    waiting.hidden = notice === "";
    setText(waiting, notice);
    this.#showFacts();
    this.#tools.refresh();
    setText(element("raw-count"), String(this.#eventCount));
  }

  #notice() {
    if (this.#isCut) return text("reconnecting");
    if (this.#waiting) {
      const { attempt, reason, retry_s: retry } = this.#waiting;
      return text("waitingForProvider", { attempt, reason, retry });
    }
    const silent = Math.floor((performance.now() - this.#lastSignAt) / 1000);
    return silent >= 45 ? text("silent", { seconds: silent }) : "";
  }

  #setState(state, params = {}) {
    this.#state = state;
    this.#stateParams = params;
    if (this.ended) {
      this.#endedAt = performance.now();
      this.#tools.settle();
      element("answer").removeAttribute("aria-busy");
    }
    this.refresh();
  }

  #apply(event) {
    if (event.type !== "usage.updated") this.#waiting = null;
    switch (event.type) {
      case "run.queued":
        return this.#setState("queued", { position: event.position });
      case "run.started":
        this.#facts.set("factModel", event.model);
        return this.#setState("running");
      case "text.delta":
        return this.#addText(event.text);
      case "thought.delta":
        element("thoughts").hidden = false;
        return element("thoughts-text").append(event.text);
      case "tool.started":
        element("activity").hidden = false;
        this.#segment = null; // what follows is a paragraph of its own
        return this.#tools.started(event);
      case "tool.updated":
        element("activity").hidden = false;
        return this.#tools.updated(event);
      case "permission.requested":
        element("activity").hidden = false;
        this.#segment = null;
        return this.#tools.asked(event, (option) => this.onAnswer(event.id, option));
      case "permission.resolved":
        return this.#tools.resolved(event);
      case "plan.updated":
        return this.#showPlan(event.entries ?? []);
      case "provider.waiting":
        this.#waiting = event;
        return undefined;
      case "stream.gap":
        element("activity").hidden = false;
        return this.#tools.note(text("gap", event));
      case "usage.updated":
        return this.#showUsage(event);
      case "run.finished":
        if (event.stop_reason) this.#facts.set("factReason", event.stop_reason);
        if (event.usage) this.#showUsage(event.usage);
        return this.#setState("finished");
      case "run.failed":
        this.failure = { message: event.message, code: event.code ?? "" };
        return this.#setState("failed");
      case "run.cancelled":
        this.#facts.set("factReason", text("cancelledBy", { by: event.by }));
        return this.#setState("cancelled");
      default:
        return undefined; // newer than this page: the event log shows it
    }
  }

  #addText(more) {
    if (!more) return;
    if (!this.#facts.has("factFirstText")) {
      this.#facts.set("factFirstText", seconds(performance.now() - this.#startedAt));
      if (this.#state !== "running") this.#setState("running");
    }
    if (!this.#segment) {
      this.#segment = document.createElement("div");
      element("answer").append(this.#segment);
    }
    const last = this.#segment.lastChild;
    if (last && last.length < SEGMENT_LENGTH) last.appendData(more);
    else this.#segment.append(more);
  }

  #showPlan(entries) {
    element("plan").hidden = entries.length === 0;
    element("plan-entries").replaceChildren(
      ...entries.map((entry) => {
        const item = document.createElement("li");
        item.dataset.status = entry.status ?? "pending";
        item.textContent = entry.content;
        return item;
      }),
    );
  }

  #showUsage(usage) {
    this.#facts.set("factTokens", () =>
      text("usageTokens", {
        input: usage.input_tokens ?? 0,
        output: usage.output_tokens ?? 0,
        cached: usage.cached_tokens ?? 0,
        reasoning: usage.reasoning_tokens ?? 0,
      }),
    );
    if (typeof usage.cost_usd === "number") {
      this.#facts.set("factCost", `$${usage.cost_usd.toFixed(4)}`);
    }
  }

  #showFacts() {
    const rows = [...this.#facts];
    if (this.#startedAt) {
      rows.push(["factDuration", seconds((this.#endedAt || performance.now()) - this.#startedAt)]);
      rows.push(["factBytes", String(this.#byteCount)]);
    }
    const list = element("facts");
    while (list.children.length > rows.length) list.lastChild.remove();
    rows.forEach(([key, value], index) => {
      const row = list.children[index] ?? list.appendChild(factRow());
      row.dataset.fact = key;
      setText(row.firstChild, text(key));
      setText(row.lastChild, typeof value === "function" ? value() : String(value));
    });
  }

  #log(events) {
    if (events.length === 0) return;
    this.#rawLines.push(...events.map((event) => JSON.stringify(event)));
    this.#rawLines = this.#rawLines.slice(-RAW_LINES);
    if (element("raw").open) this.showRaw();
  }

  /** Write the event log; only asked for while it is open. */
  showRaw() {
    element("raw-text").textContent = this.#rawLines.join("\n");
  }
}

function factRow() {
  const row = document.createElement("div");
  row.append(document.createElement("dt"), document.createElement("dd"));
  return row;
}

/** Set *el*'s text where it changes, so that screen readers hear only news. */
function setText(el, value) {
  if (el.textContent !== value) el.textContent = value;
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 0)} s`;
}
