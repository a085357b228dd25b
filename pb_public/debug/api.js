/** Requests to the gateway, and what can go wrong with them. */

import { currentLanguage, text } from "./texts.js";

/** Anything to tell the person in front of the page: a sentence, and details for the curious. */
export class Failure extends Error {
  /**
   * @param {string} message one sentence
   * @param {{status?: number, code?: string, requestId?: string | null}} [details]
   */
  constructor(message, { status = 0, code = "", requestId = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId;
  }

  /** The details as one line, or an empty string. */
  get detail() {
    const parts = [
      this.code,
      this.status ? `HTTP ${this.status}` : "",
      this.requestId ? `request_id ${this.requestId}` : "",
    ];
    return parts.filter(Boolean).join(" · ");
  }
}

/**
 * Ask the gateway.
 *
 * @param {string} path
 * @param {object} [options]
 * @param {string} [options.token] goes into a header, never into the address
 * @param {unknown} [options.body] sent as JSON
 * @param {number | null} [options.lastEventId] number of the last event that is here already
 * @returns {Promise<Response>} an answer with a good status; its body is still to be read
 * @throws {Failure} no answer, or one that says no
 * @throws {DOMException} *signal* was aborted
 */
export async function ask(path, options = {}) {
  const { method = "GET", token, body, accept, signal, lastEventId = null } = options;
  const headers = {
    Accept: accept ?? "application/json",
    "Accept-Language": currentLanguage(),
  };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (lastEventId !== null) headers["Last-Event-ID"] = String(lastEventId);
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(text("network"), { code: "network" });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  const requestId = response.headers.get("X-Request-ID");
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Not ours: a proxy in between answered, or the connection broke off.
  }
  const sentence = typeof problem?.error === "string" ? problem.error : "";
  return new Failure(sentence || text("unexpected", { status: response.status }), {
    status: response.status,
    code: typeof problem?.code === "string" ? problem.code : "",
    requestId: problem?.request_id ?? requestId,
  });
}
