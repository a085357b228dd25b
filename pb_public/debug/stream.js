/**
 * A run's events from a streamed body, in each of the gateway's three formats.
 *
 * Chunks may break anywhere: inside a line, between `\r` and `\n`, inside a character.
 */

/** Splits text into lines; the end of the last one may still be to come. */
export class LineSplitter {
  #separator;
  #rest = "";
  #afterReturn = false;

  /** @param {RegExp} separator what ends a line; a `\r\n` across two chunks counts once */
  constructor(separator = /\r\n|\r|\n/) {
    this.#separator = separator;
  }

  /** Take more text; return the lines it completes, without their ends. */
  feed(more) {
    if (more === "") return [];
    const fresh = this.#afterReturn && more.startsWith("\n") ? more.slice(1) : more;
    this.#afterReturn = more.endsWith("\r");
    const lines = (this.#rest + fresh).split(this.#separator);
    this.#rest = lines.pop();
    return lines;
  }
}

/** Server-sent events (WHATWG HTML §9.2.6): `data` of each event is one of ours, as JSON. */
export class SseParser {
  #lines = new LineSplitter();
  #data = [];

  feed(more) {
    const events = [];
    for (const line of this.#lines.feed(more)) {
      if (line === "") {
        if (this.#data.length) events.push(JSON.parse(this.#data.join("\n")));
        this.#data = [];
      } else if (line === "data" || line.startsWith("data:")) {
        this.#data.push(line.slice(5).replace(/^ /, ""));
      }
      // `id` and `event` repeat what the data says; a comment is a heartbeat.
    }
    return events;
  }

  /** An event that was cut off is none. */
  finish() {
    return [];
  }
}

/** One event a line; a blank line is a heartbeat. */
export class NdjsonParser {
  #lines = new LineSplitter(/\n/);

  feed(more) {
    return this.#lines
      .feed(more)
      .filter((line) => line.trim() !== "")
      .map((line) => JSON.parse(line));
  }

  finish() {
    return [];
  }
}

const TAIL_LENGTH = 2000;

/** The text as it comes; its last line says how the run ended. */
export class TextParser {
  #tail = "";

  feed(more) {
    if (more === "") return [];
    this.#tail = (this.#tail + more).slice(-TAIL_LENGTH);
    return [{ type: "text.delta", text: more }];
  }

  finish() {
    const failed = /\n\[ERROR\] (.*)\n$/.exec(this.#tail);
    if (failed) return [{ type: "run.failed", message: failed[1] }];
    if (/\n\[✔ User .* - Fertig!\]\n$/.test(this.#tail)) return [{ type: "run.finished" }];
    return [];
  }
}

const PARSERS = {
  "text/event-stream": SseParser,
  "application/x-ndjson": NdjsonParser,
  "text/plain": TextParser,
};

/**
 * Read *body* to its end.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @param {string} format media type
 * @yields {{bytes: number, events: object[]}} what each chunk brought, which may be nothing
 * @throws {TypeError} the connection broke
 * @throws {SyntaxError} what came is not what the format promises
 */
export async function* readBatches(body, format) {
  const decoder = new TextDecoder();
  const parser = new PARSERS[format]();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        yield { bytes: 0, events: [...parser.feed(decoder.decode()), ...parser.finish()] };
        return;
      }
      yield { bytes: value.length, events: parser.feed(decoder.decode(value, { stream: true })) };
    }
  } finally {
    reader.cancel().catch(() => {}); // already broken or at its end: nothing left to cancel
  }
}
