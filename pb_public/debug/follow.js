/** A run's events as if the connection never broke: after a cut it is read on from where it was. */

import { Failure, ask } from "./api.js";
import { readBatches } from "./stream.js";

const WAITS_MS = [200, 500, 1000, 2000, 3000, 4000, 5000]; // before each try to come back
const RESUMABLE = new Set(["text/event-stream", "application/x-ndjson"]); // text has no numbers

/**
 * Read *response*, a stream of a run, to the run's end.
 *
 * @param {Response} response
 * @param {object} options
 * @param {string} options.token
 * @param {string} options.format media type
 * @param {AbortSignal} options.signal
 * @param {(batch: {bytes: number, events: object[]}) => boolean} options.take returns whether the
 *   run is at its end
 * @param {() => void} options.onCut the connection broke; it is being mended
 * @returns {Promise<void>} at the run's end, or where the connection can't be mended
 * @throws {DOMException} *signal* was aborted
 * @throws {Failure} the gateway says no
 */
export async function follow(response, { token, format, signal, take, onCut }) {
  const path = `/opencode/runs/${response.headers.get("X-Run-ID")}/events`;
  const canResume = RESUMABLE.has(format) && response.headers.has("X-Run-ID");
  let last = null; // number of the last event
  let tries = 0;
  for (;;) {
    try {
      for await (const batch of readBatches(response.body, format)) {
        for (const { seq } of batch.events) last = seq ?? last;
        if (batch.events.length) tries = 0;
        if (take(batch)) return;
      }
    } catch (error) {
      if (signal.aborted) throw error;
      // The connection broke, or something in between put other bytes into it.
    }
    do {
      if (!canResume || tries === WAITS_MS.length) return;
      onCut();
      await pause(WAITS_MS[tries++], signal);
      response = await comeBack(path, { token, accept: format, signal, lastEventId: last });
    } while (!response);
    if (response.status === 204) return;
  }
}

/** Ask for what follows; null where another try makes sense. */
async function comeBack(path, options) {
  try {
    return await ask(path, options);
  } catch (error) {
    if (error instanceof Failure && [0, 502, 503, 504].includes(error.status)) return null;
    throw error;
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
